"""The example that puts every part together, on a tiny model."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import tiny
from polyad.testing.decoders import random_decoder
from polyad.train.descend import descend
from together.state import SHAPE

ENGINES = ("xllamacpp", "onnx", "onnxscript", "onnxruntime")
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "together.py"


def learned():
    """A tiny Llama that has learned a little of Python's help topics."""
    model = random_decoder("Llama", **SHAPE | {"max_position_embeddings": 1024})
    ids = torch.tensor(tiny.tokenizer()(tiny.PART.joined()).input_ids[:6400]).view(-1, 64)

    def loss(step):
        rows = ids[4 * step % 96 :][:4]
        return F.cross_entropy(model(rows).logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())

    descend(model, loss, steps=80, rate=3e-3, clip=1.0)
    return model


def test_the_table_of_a_tiny_model(tmp_path, tiny_text, capsys):
    spec = importlib.util.spec_from_file_location("together_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    learned().save_pretrained(tmp_path / "tiny")
    tiny.tokenizer().save_pretrained(tmp_path / "tiny")
    if not all(map(importlib.util.find_spec, ENGINES)):
        with pytest.raises(ImportError, match="pip install"):
            example.main(str(tmp_path / "tiny"), str(tiny_text), steps=2, windows=2, length=40)
        return
    results = example.main(str(tmp_path / "tiny"), str(tiny_text), steps=30, windows=2, length=64)
    lines = capsys.readouterr().out.splitlines()
    rights = [result.right for result in results.values()]
    assert len(rights) == 6
    assert all(result.milliseconds > 0 for result in results.values())
    original, _, adapted, cached, gguf, onnx = rights
    assert original > 0.05  # by chance 0.002
    assert max(abs(right - adapted) for right in (original, cached, gguf, onnx)) < 0.05
    plain, small = [result.cache for result in results.values()][2:4]
    assert small < plain
    sizes = [int(line[40:53].replace(",", "")) for line in lines[1:7]]
    assert sizes[1] < sizes[0] / 2.5
    assert sizes[4] < sizes[0]  # the tokenizer is in that file
