"""Damaged files and killed processes: what polyad reads again is right, or refused in a sentence."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import NotRequired, TypedDict

import pytest
import torch

from polyad import _partial, _sealed, _stated, _unfinished
from polyad.formats import LowRank, load_format, save_format

ROOT = Path(__file__).parents[2]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_the_readers_stand_a_thousand_cases_of_damage(tmp_path):
    store = tmp_path / "fuzz.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", "--cases", "1000", "--store", store],
        cwd=ROOT, env=ALONE, check=True, capture_output=True,
    )  # fmt: skip
    stored = json.loads(store.read_text())
    assert stored["bad"] == []
    assert sum(sum(counts.values()) for counts in stored["counts"].values()) == 1000
    assert sum(counts["refused"] for counts in stored["counts"].values()) > 400
    assert stored["counts"]["baseline"]["same"] > 40
    assert stored["counts"]["tokens"]["other"] == 0


def test_the_same_command_goes_on_after_twenty_five_kills(tmp_path):
    store = tmp_path / "kills.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", "--jobs", "decompose,save,adapt,compress,convert", "--changes",
         "5", "--random", "0", "--store", store],
        cwd=ROOT, env=ALONE, check=True, capture_output=True,
    )  # fmt: skip
    stored = json.loads(store.read_text())
    assert sum(map(len, stored.values())) == 25
    assert {job: {name: said for name, said in done.items() if said} for job, done in stored.items()} == {
        job: {} for job in stored
    }


def test_every_flipped_bit_of_a_saved_format_is_told(tmp_path):
    file = tmp_path / "x.safetensors"
    save_format(LowRank(torch.arange(6.0).reshape(3, 2), torch.ones(2, 4)), file)
    whole, right = file.read_bytes(), load_format(file).to_dense()
    for place in range(len(whole)):
        for bit in (0, 7):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                same = torch.equal(load_format(file).to_dense(), right)
            except ValueError as error:
                same = len(str(error).split()) > 5
            assert same, f"byte {place}, bit {bit}"


def test_a_file_without_a_checksum_is_read_and_one_with_another_is_not(tmp_path):
    file = tmp_path / "x.safetensors"
    _sealed.write_sealed(file, {"a": torch.ones(2)}, "format", {"b": "c"})
    tensors, metadata = _sealed.read_sealed(file, "format", "save it again")
    assert torch.equal(tensors["a"], torch.ones(2))
    assert metadata["b"] == "c"
    old = {key: value for key, value in metadata.items() if key != _sealed.SEAL}
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, file, old)
    assert torch.equal(_sealed.read_sealed(file, "format", "save it again")[0]["a"], torch.zeros(2))
    save_file({"a": torch.zeros(2)}, file, metadata)
    with pytest.raises(ValueError, match=r"was changed since it was written.*save it again"):
        _sealed.read_sealed(file, "format", "save it again")


class Kind(TypedDict):
    rank: int
    names: list[str]
    scale: NotRequired[float | None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"rank": 2}', "an object with names is needed"),
        ('{"rank": true, "names": []}', "states true for rank, where a whole number"),
        ('{"rank": 1e3, "names": []}', "states 1000.0 for rank"),
        ('{"rank": 9999999999999999, "names": []}', "for rank, where a whole number of at most"),
        ('{"rank": 1, "names": ["a", null]}', r"states null for names\[1\], where a text is needed"),
        ('{"rank": 1, "names": [], "scale": NaN}', "for scale, where a finite number or null"),
        ('{"rank": 1, "names": [], "scale": 1' + "0" * 400 + "}", "for scale"),
        ('{"rank": 1' + "0" * 5000 + ', "names": []}', "no JSON that can be read"),
        ("[" * 100_000, "no JSON that can be read"),
        ("[]", "where an object is needed"),
    ],
)
def test_json_of_another_kind_is_refused_by_its_place(text, said):
    with pytest.raises(ValueError, match=said):
        _stated.parse_stated(text, Kind, "a.json")


def test_json_of_the_kind_is_given_back():
    for value in ({"rank": 1, "names": ["a"]}, {"rank": -1, "names": [], "scale": None, "more": {}}):
        assert _stated.parse_stated(json.dumps(value), Kind, "a.json") == value


def test_what_a_file_makes_python_raise_becomes_a_sentence():
    with (
        pytest.raises(ValueError, match=r"the folder is odd \(KeyError: 'x'\); copy it again"),
        _stated.in_words("the folder is odd"),
    ):
        {}["x"]
    with (
        pytest.raises(ValueError, match="names 'load', which is no dtype"),
        _stated.in_words("the folder is odd"),
    ):
        raise_of_polyad()


def raise_of_polyad():
    from polyad.formats._spec import dtype_called

    dtype_called("load")


def test_left_overs_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path):
    target = tmp_path / "x.json"
    dead = tmp_path / ".x.json.999999999.01234567.partial"
    living = tmp_path / f".x.json.{os.getpid()}.01234567.partial"
    other = tmp_path / ".x.json.partial.mine"
    for path in (dead, living, other):
        path.write_text("x")
    with _partial.whole_file(target) as partial:
        partial.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([other.name, living.name, "x.json"])


def test_of_two_writers_of_one_file_the_second_is_told(tmp_path):
    target = tmp_path / "x.safetensors"

    def write_both():
        with _partial.whole_file(target, replace=False) as mine:
            mine.write_text("mine")
            with _partial.whole_file(target, replace=False) as theirs:
                theirs.write_text("theirs")

    with pytest.raises(FileExistsError, match="was written by another process meanwhile"):
        write_both()
    assert target.read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_places_where_nothing_can_be_made_are_refused_before(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path / "link", tmp_path / "link" / "out"):
        with pytest.raises(FileNotFoundError, match="which is not there; remove the link"):
            _partial.check_place(place)
    with pytest.raises(ValueError, match="has 230 bytes; choose one of at most 200"):
        _partial.check_place(tmp_path / ("x" * 230))


def _work(place, wait, said):
    try:
        with _unfinished.lock(Path(place), wait=wait):
            said.send("in")
            said.recv()
    except FileExistsError as error:
        said.send(str(error))


def test_a_second_process_waits_or_is_told(tmp_path):
    target = tmp_path / "out"
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    process = context.Process(target=_work, args=(str(target), False, theirs))
    with _unfinished.lock(target, wait=False):
        process.start()
        assert "another process is at work" in mine.recv()
    process.join()
    process = context.Process(target=_work, args=(str(target), True, theirs))
    with _unfinished.lock(target):
        process.start()
        assert not mine.poll(0.3)
    assert mine.recv() == "in"
    process.kill()  # the system ends the lock of a process that is no more
    process.join()
    with _unfinished.lock(target, wait=False):
        assert [p.name for p in tmp_path.iterdir()] == [".out.lock"]
    assert not list(tmp_path.iterdir())


def test_a_stopped_command_may_replace_its_own_output_alone(tmp_path):
    target = tmp_path / "out"

    def make(asked, stop=False):
        with _unfinished.unfinished(target, asked) as work:
            work.set_aside()
            target.mkdir()
            (target / "result").write_text(str(asked))
            work.bring_back()
            if stop:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make({"a": 1}, stop=True)
    (target / "mine").write_text("the user's own")
    with pytest.raises(FileExistsError, match="already holds something"):
        make({"a": 2})
    make({"a": 1})
    assert (target / "mine").read_text() == "the user's own"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(FileExistsError, match="already holds something"):
        make({"a": 1})
