"""The export command: every option of every writer, modules that are no models of transformers, and refusals."""

import contextlib
import functools
import inspect
import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import polyad
from export_of import rounded
from polyad.cli.export import export as command
from polyad.export import FORMATS, ExportResult
from polyad.interop.onnx import require_packages

NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    print("made of layers")
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Flatten(2), Last())

class Last(nn.Module):
    def forward(self, x):
        return x.mean(-1)

def number():
    return 3

def broken():
    raise KeyError("weights")
"""


def network_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(NETWORK)
    return file


def network(file):
    space = {"__name__": "mine"}
    exec(file.read_text(), space)
    return space["network"]().eval()


def has_engine():
    try:
        require_packages()
    except ImportError:
        return False
    return True


def test_the_command_takes_every_option_of_every_writer():
    takes = set(inspect.signature(command).parameters)
    for write in FORMATS.values():
        wanted = {n for n, p in inspect.signature(write).parameters.items() if p.kind is p.KEYWORD_ONLY}
        assert wanted <= takes


def test_a_network_of_a_file_is_exported(tmp_path, polyad_command):
    file = network_file(tmp_path)
    with contextlib.redirect_stdout(sys.stderr):
        small = rounded(network(file), bits=8, group=9)
    polyad.save(small, tmp_path / "small")
    out = ("export", tmp_path / "small", tmp_path / "out", "--format", "onnx", "--like", f"{file}:network")
    code, said, complained = polyad_command(*out, "--inputs", "2x3x6x5", "--json")
    if not has_engine():
        assert code != 0
        assert "pip install 'polyad[onnx]'" in complained.replace("\n", " ")
        return
    assert code == 0, complained
    result = json.loads(said)
    assert result["checked"]["largest_relative_difference"] < 1e-5
    assert (tmp_path / "out" / "model.onnx").is_file()
    save_file({"input": torch.randn(2, 3, 6, 5)}, tmp_path / "inputs.safetensors")
    named = (*out[:2], tmp_path / "named", *out[3:], "--inputs", tmp_path / "inputs.safetensors")
    code, _, complained = polyad_command(*named, "--accuracy-level", "1", "--max-file-size", "100")
    assert code == 0, complained
    assert (tmp_path / "named" / "model.onnx_data").is_file()


def test_options_reach_the_writer(tmp_path, polyad_command, tiny_folder, monkeypatch):
    given = {}
    for format, write in FORMATS.items():

        @functools.wraps(write)
        def record(_model, out, *, format=format, **options):
            given[format] = options
            return ExportResult(out, format, 0)

        monkeypatch.setitem(FORMATS, format, record)
    out = ("export", tiny_folder, tmp_path / "out", "--format")
    polyad_command(*out, "onnx", "--dtype", "float16", "--accuracy-level", "4", "--max-file-size", "9", "--unchecked")
    polyad_command(*out, "gguf", "--container", "Q8_0")
    polyad_command(*out, "transformers", "--max-shard-size", "7")
    assert given == {
        "onnx": {"dtype": "float16", "accuracy_level": 4, "max_file_size": 9, "unchecked": True},
        "gguf": {"container": "Q8_0"}, "transformers": {"max_shard_size": 7},
    }  # fmt: skip


REFUSED = {
    ("--format", "gguf", "--dtype", "float16"): "dtype is no option of format 'gguf'; it takes container, unchecked",
    ("--format", "onnx", "--container", "Q8_0"): "container is no option of format 'onnx'",
    ("--format", "onnx", "--inputs", "2x3x"): "--inputs '2x3x' is neither shapes, such as 2x3x224x224",
    ("--format", "onnx", "--inputs", "none.safetensors"): "is neither shapes",
    ("--format", "onnx", "--like", "mine:network"): "names no function of a file; write --like my_network.py:network",
    ("--format", "onnx", "--like", "FILE:nowhere"): "has no function nowhere; it has network, Last, number, broken",
    ("--format", "onnx", "--like", "FILE:number"): "gave a int; let the function return an nn.Module",
    ("--format", "onnx", "--like", "FILE:broken"): "stopped: mine.py, line 18: KeyError: 'weights'",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_is_said_before_any_work(options, tmp_path, polyad_command):
    file = network_file(tmp_path)
    given = [option.replace("FILE", str(file)) for option in options]
    code, _, complained = polyad_command("export", tmp_path / "none", tmp_path / "out", *given)
    assert code != 0
    said = " ".join(complained.split())
    for word in REFUSED[options].split():
        assert word in said
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_of_inputs_is_said(tmp_path, polyad_command):
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 40)
    code, _, complained = polyad_command(
        "export", tmp_path, tmp_path / "out", "--format", "onnx", "--inputs", tmp_path / "x.safetensors"
    )
    assert code != 0
    assert "is no whole .safetensors file" in " ".join(complained.split())


def test_a_module_without_its_architecture_names_the_option(tmp_path, polyad_command):
    polyad.save(rounded(nn.Sequential(nn.Linear(8, 4)), bits=8), tmp_path / "small")
    code, _, complained = polyad_command("export", tmp_path / "small", tmp_path / "out", "--format", "onnx")
    assert code != 0
    assert "like" in complained
