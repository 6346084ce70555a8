"""Every ordered pair of the library's parts: right by the dense twin of the model, or refused in a sentence."""

import functools
import re
import tempfile
from pathlib import Path

import pytest
import torch

import polyad
import tiny
from together.parts import CODED, COMPRESSIONS, ONNX, PARTS, TEXT, relative
from together.state import IDS, dense_twin, start

ALREADY = r"is compressed already \(it holds .*compress the original, with both methods as the steps of one recipe"
ADAPTED = r"has adapters on it: put them into the weights by merge\(keep=False\), or detach them"
MERGED = r"put them into the weights by merge\(keep=False\)"
ON_COMPRESSED = {f"{a} + adapt": a for a in COMPRESSIONS}
"""Adapters on a compressed model, which is one part of it with whatever comes next."""
REFUSED = {
    **{(a, b): ALREADY for a in CODED for b in COMPRESSIONS},
    **{(a, "merge"): "is stored as .*, to which an update cannot be added; leave it unmerged" for a in CODED},
    **{("adapt", b): ADAPTED for b in COMPRESSIONS},
    **{(a, "transformers"): "transformers has no quantiser that could hold" for a in COMPRESSIONS if a != "rounded"},
    **{(a, "transformers"): f"has adapters attached to it, .* {MERGED}" for a in ("adapt", *ON_COMPRESSED)},
    **{(a, "merge"): "to which an update cannot be added; leave it" for a, c in ON_COMPRESSED.items() if c in CODED},
    **{(a, b): ADAPTED for a in ON_COMPRESSED for b in COMPRESSIONS},
}


@functools.cache
def behind(first):
    """The state behind one part, or behind several joined by " + ", and its logits."""
    state = start(Path(tempfile.mkdtemp()))
    for name in first.split(" + "):
        run(name, state)
    return state, state.logits()


def run(name, state):
    """Run a part and hold what it leaves to the dense twin."""
    (ONNX if name == "onnx" else PARTS[name])(state)
    assert relative(state.logits(), tiny.logits(dense_twin(state.model), IDS)) < 1e-5


@pytest.mark.parametrize("second", PARTS)
@pytest.mark.parametrize("first", [*PARTS, *ON_COMPRESSED])
def test_a_pair_is_right_or_refused(first, second, tmp_path):
    before, logits = behind(first)
    state = before.branch(tmp_path)
    if (first, second) not in REFUSED:
        run(second, state)
    else:
        with pytest.raises(ValueError, match=re.compile(REFUSED[first, second], re.DOTALL)):
            PARTS[second](state)
        if state.adapters is None:
            assert torch.equal(state.logits(), logits)
        assert list(tmp_path.iterdir()) == []
    assert torch.equal(before.logits(), logits)  # of the copy that went on nothing is shared


@pytest.mark.parametrize("last", ["adapt", "fewer channels"])
def test_a_graph_is_written_behind_every_part_and_before_every_part(last, tmp_path):
    parts = ["cache", "train", "merge", "save and load", "generate", "gguf", "transformers"]
    if last == "fewer channels":  # and behind every format, which layers of one model hold side by side
        parts = []
    state = start(tmp_path / "first", num_hidden_layers=1)
    for name in [*parts, last]:
        run(name, state)
    if last == "fewer channels":
        for select, recipe in FORMATS.items():
            keep = {"keep": 0.8} if "svd" in recipe else {}
            polyad.apply(state.model, polyad.plan(state.model, recipe, select=select, calibrate=TEXT, **keep))
        run("adapt", state)
    run("onnx", state)
    state.place = tmp_path / "second"
    for name in ["adapt", "cache", "train", "save and load", "generate", "gguf"]:
        run(name, state)


FORMATS = {
    "*up_proj": "rtn:bits=4,group=16", "*gate_proj": "svd", "*k_proj": ["svd", "rtn:bits=4,group=4"],
    "*o_proj": ["rtn:bits=4,group=8", "eora:rank=2"],
}  # fmt: skip


def test_every_refusal_is_of_a_pair():
    assert {part for pair in REFUSED for part in pair} <= {*PARTS, *ON_COMPRESSED}
