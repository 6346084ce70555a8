"""The example that puts every part together, on a tiny model."""

import importlib.util
from pathlib import Path

import pytest

import tiny
from polyad.testing.decoders import random_decoder
from together.state import SHAPE

ENGINES = ("xllamacpp", "onnx", "onnxscript", "onnxruntime")
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "together.py"


def test_the_table_of_a_tiny_model(tmp_path, tiny_text, capsys):
    spec = importlib.util.spec_from_file_location("together_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    random_decoder("Llama", **SHAPE | {"max_position_embeddings": 1024}).save_pretrained(tmp_path / "tiny")
    tiny.tokenizer().save_pretrained(tmp_path / "tiny")
    if not all(map(importlib.util.find_spec, ENGINES)):
        with pytest.raises(ImportError, match="pip install"):
            example.main(str(tmp_path / "tiny"), str(tiny_text), steps=2, windows=2, length=40)
        return
    results = example.main(str(tmp_path / "tiny"), str(tiny_text), steps=30, windows=2, length=64)
    lines = capsys.readouterr().out.splitlines()
    rights = [right for right, _ in results.values()]
    assert len(rights) == 6
    assert all(seconds > 0 for _, seconds in results.values())
    _, rounded, adapted, cached, gguf, onnx = rights
    assert adapted > rounded
    assert max(abs(right - adapted) for right in (cached, gguf, onnx)) < 0.05
    sizes = [int(line[34:47].replace(",", "")) for line in lines[1:7]]
    assert sizes[1] < sizes[0] / 2.5
    assert sizes[4] < 1.1 * sizes[2]
