"""What every version of polyad has saved stays readable: stored numbers to the bit, all else to rounding."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from saved.reading import BITS, CASES, EXPECTED, READERS, ROOT, STORED, digest, read


def near(dtype, largest):
    """How far roundings in another order may lead; trainings add them up over some steps."""
    return (16 if dtype == torch.bfloat16 else 1000) * torch.finfo(dtype).eps * max(1.0, largest)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_was_saved_stays_readable(case, tmp_path):
    folder, work = ROOT / case, tmp_path / "work"
    work.mkdir()
    found = read(folder, work)
    bits = json.loads((folder / BITS).read_text())
    follows = load_file(folder / EXPECTED)
    assert found.keys() == bits.keys() | {key.partition("/")[2] for key in follows}
    other = [key for key, expected in bits.items() if digest(found[key]) != expected]
    assert not other, f"{other} are not the numbers that were stored"
    for name, expected in follows.items():
        how, _, key = name.partition("/")
        assert (found[key].dtype, found[key].shape) == (expected.dtype, expected.shape), key
        if how == "kept" or not expected.is_floating_point():
            assert torch.equal(found[key], expected), key
        else:
            off = float((found[key].double() - expected.double()).abs().max())
            assert off <= near(expected.dtype, float(expected.double().abs().max())), f"{key} is off by {off:.3g}"


def test_every_version_has_cases_of_every_kind():
    for version in {case.parts[0] for case in CASES}:
        assert {case.parts[1] for case in CASES if case.parts[0] == version} == READERS.keys()
    stored = [json.loads((ROOT / case / BITS).read_text()) for case in CASES]
    assert sum(map(len, stored)) > 1500
    assert all(key.startswith(STORED) for own in stored for key in own)


def names(value):
    """The names of formats, layers and methods in JSON that polyad wrote."""
    if isinstance(value, list):
        for inner in value:
            yield from names(inner)
    if isinstance(value, dict):
        yield from (value[key] for key in ("layer", "method") if key in value)
        yield from (value["kind"],) if "fields" in value else ()
        yield from names(list(value.values()))


ALONE = """
import json, polyad
from polyad.models.assembly import LAYERS
from polyad.models.described import KINDS
known = [*polyad.formats.kinds(), *LAYERS, *KINDS, *(card.name for card in polyad.methods()), "torch.Linear"]
print(json.dumps([name for name in SAID if name not in known]))
"""


def test_what_a_file_names_is_known_where_polyad_alone_was_imported():
    said = {name for file in ROOT.rglob("polyad.json") for name in names(json.loads(file.read_text()))}
    for file in ROOT.glob("*/format/*/saved/*.safetensors"):
        with safe_open(file, "pt") as opened:
            said |= set(names(json.loads(opened.metadata()["polyad.format"])))
    assert len(said) > 50
    assert not [name for name in said if name.startswith("polyad.")], "a file names a module, which may move"
    script = f"SAID = {sorted(said)}{ALONE}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
