"""The parts of the library as steps: each takes a state on and says what must hold behind it."""

import functools
import importlib.util

import torch
from torch.nn import functional as F

import polyad
import tiny
from polyad.adapters import Adapters, LoRA
from polyad.cache.maker import maker
from polyad.data import Calibration
from polyad.evaluation import nbytes
from polyad.export import export
from polyad.train.descend import descend
from together.state import IDS, dense_twin, dense_weight

TEXT = Calibration(tiny.ids(6, 48, seed=2), tiny.ids(2, 32, seed=3), {"ids": "0"})
NEW = 8
CODEC = "kivi:bits=8,group=8,window=4"


def compress(state, *, recipe, change, **how):
    """Every layer keeps its weight but for what the format leaves out of it; some change, and bytes go down."""
    plan = polyad.plan(state.model, recipe, calibrate=TEXT, **how)
    before, size = weights(state.model, plan.selected), nbytes(state.model, plan.selected).selected
    polyad.apply(state.model, plan)
    after = weights(state.model, plan.selected)
    if change is not None:  # channels that are cut leave other shapes
        assert 0 < relative(*(torch.cat([x.flatten() for x in one.values()]) for one in (after, before))) < change
    assert nbytes(state.model, plan.selected).selected < size


def weights(model, paths):
    return {path: dense_weight(model.get_submodule(path)) for path in paths}


def adapt(state):
    before = state.logits()
    state.adapters = state.adapters or Adapters(state.model)
    name = f"a{len(state.adapters.names)}"
    state.adapters.attach(name, "*_proj", LoRA, rank=2)
    assert torch.equal(state.logits(), before)
    with torch.no_grad():
        for i, parameter in enumerate(state.adapters.parameters(name)):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    if len(state.adapters.names) > 1:
        state.adapters.activate(state.adapters.names)
    assert not torch.allclose(state.logits(), before)


def cache(state):
    """A small cache gives nearly the logits of the exact one, token by token, in fewer bytes."""
    kv = maker(state.model, CODEC, lambda: TEXT.windows)()
    expected = tiny.logits(dense_twin(state.model), IDS)
    with torch.no_grad():
        rows = [state.model(IDS[:, :12], past_key_values=kv, use_cache=True).logits]
        rows += [state.model(IDS[:, i : i + 1], past_key_values=kv, use_cache=True).logits for i in range(12, 20)]
    assert 0 < relative(torch.cat(rows, 1), expected) < 0.02
    got = polyad.generate(state.model, IDS, max_new_tokens=NEW, cache=CODEC, dtype=torch.float32)
    plain = polyad.generate(state.model, IDS, max_new_tokens=NEW, dtype=torch.float32)
    assert got.cache_bytes < 0.75 * plain.cache_bytes
    assert float((got.tokens == plain.tokens).float().mean()) > 0.5


def train(state):
    """What may be trained moves and the loss falls; everything else stays to the bit."""
    trained = {id(p) for p in state.model.parameters() if p.requires_grad}
    before = {name: t.clone() for name, t in state.model.state_dict(keep_vars=True).items()}
    target = tiny.ids(4, 24, seed=9)

    def loss(step):
        return F.cross_entropy(
            state.model(target, use_cache=False).logits[:, :-1].flatten(0, 1), target[:, 1:].flatten()
        )

    losses = descend(state.model, loss, steps=4, rate=3e-3)
    assert losses[-1] < losses[0]
    for name, tensor in state.model.state_dict(keep_vars=True).items():
        assert torch.equal(tensor, before[name]) == (id(tensor) not in trained), name


def merge(state):
    if state.adapters is None:
        adapt(state)
    before = state.logits()
    state.adapters.merge(keep=False)
    state.adapters = None
    torch.testing.assert_close(state.logits(), before, rtol=1e-4, atol=1e-4)


def save(state):
    """Saved and loaded again, adapters in a folder of their own, to the bit."""
    before, names = state.logits(), [] if state.adapters is None else state.adapters.names
    for name in names:
        state.adapters.save(name, state.place / name)
    for name in names:
        state.adapters.detach(name)
    polyad.save(state.model, state.place / "saved")
    state.model = polyad.load(state.place / "saved", kernels="plain")
    state.adapters = Adapters(state.model) if names else None
    for name in names:
        state.adapters.load(state.place / name)
    if names:
        state.adapters.activate(names)
    assert torch.equal(state.logits(), before)


def generate(state):
    """The tokens that the dense twin makes by transformers, of a batch padded on the left too."""
    mask = torch.ones_like(IDS)
    mask[1, :5] = 0
    twin = dense_twin(state.model)
    got = polyad.generate(state.model, IDS, attention_mask=mask, max_new_tokens=NEW, dtype=torch.float32)
    expected = twin.generate(IDS, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
    assert (got.loop, got.reason) == ("polyad", None)
    assert got.sequences.tolist() == expected.tolist()


def leave(state, format, packages):
    """Exported, run by the engine of the format, and compared with the model; which stays what it was."""
    out, before = state.place / f"out.{format}", state.logits()
    if not all(map(importlib.util.find_spec, packages)):
        return
    result = export(state.model, out, format)
    assert result.checked
    assert torch.equal(state.logits(), before)


def relative(value, expected):
    return float((value - expected).detach().norm() / expected.detach().norm())


def by(recipe, change, **how):
    return functools.partial(compress, recipe=recipe, change=change, **how)


COMPRESSIONS = {
    "rounded": by("rtn:bits=4,group=32", 0.2),
    "low rank": by("svd", 0.9, keep=0.8),
    "low rank in 4 bits": by(["svd", "rtn:bits=4,group=4"], 0.9, keep=0.6),
    "rounded plus low rank": by(["rtn:bits=4,group=32", "eora:rank=2"], 0.2),
    "fewer channels": by("modegpt", None, keep=0.6),
}
CODED = [name for name in COMPRESSIONS if name != "fewer channels"]
"""Those behind which layers hold formats; cut layers are dense."""
PARTS = {
    **COMPRESSIONS, "adapt": adapt, "cache": cache, "train": train, "merge": merge, "save and load": save,
    "generate": generate,
    "gguf": functools.partial(leave, format="gguf", packages=("xllamacpp",)),
    "transformers": functools.partial(leave, format="transformers", packages=("compressed_tensors",)),
}  # fmt: skip
"""All but ONNX, whose tracing takes seconds a graph: it stands in whole chains of parts instead."""
ONNX = functools.partial(leave, format="onnx", packages=("onnx", "onnxscript", "onnxruntime"))
