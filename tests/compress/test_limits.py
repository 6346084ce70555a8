"""What cannot be done is known before the work: memory, dead layers, layers that are compressed already."""

import contextlib
import functools
import inspect
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import polyad
import tiny
from polyad._card import card, methods
from polyad.compress import lord, modegpt
from polyad.compress.layer_item import LayerItem
from polyad.compress.recipe import steps
from polyad.data import Calibration
from polyad.models import collect, load, save
from polyad.models.calibration import room

TEXT = Calibration(tiny.ids(6, 48, seed=2), tiny.ids(2, 32, seed=3), {"ids": "0"})


def test_statistics_that_memory_does_not_hold_are_refused_with_the_figure(monkeypatch):
    monkeypatch.setattr(room, "available_bytes", lambda _device: 8_000_000_000)
    wide = nn.Sequential(nn.Conv1d(1024, 2, 64, device="meta"))
    assert wide[0].weight.numel() / 2 == 65_536
    with pytest.raises(ValueError, match=r"take 17.2 GB and 8 GB are free, most of it those of 0 \(17.2 GB\)"):
        collect(wide, {"0": {"second"}}, [torch.ones(1, 1024, 64)])
    room.refuse_too_large(wide, {"0": {"mean", "peak"}})
    attention = nn.ModuleDict({name: nn.Linear(30_000, 1, bias=False, device="meta") for name in ("q", "k", "v")})
    room.refuse_too_large(attention, {name: {"second"} for name in attention})  # 3.6 GB, which the three may share


WIDE, TALL = (4_096, 65_536), (151_936, 896)  # a convolution of 1,024 channels by 64 taps, and a head


@pytest.mark.parametrize(
    ("name", "shape", "least", "most"),
    [
        ("lord", WIDE, 11, 12), ("lord", TALL, 5, 6), ("eora", WIDE, 210, 215), ("eora", TALL, 3, 4),
        ("svd", WIDE, 17, 18), ("svd", TALL, 8, 9), ("welore", WIDE, 17, 18),
    ],
)  # fmt: skip
def test_what_a_solve_holds_follows_from_the_shape(name, shape, least, most, monkeypatch):
    """In units of 10⁹ bytes; only eora solves the moment of the inputs of a wide layer, which is of their square."""
    one = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False, device="meta"))
    step = steps(f"{name}:rank=8")[0]
    bound = LayerItem(step, "0").holds(one)
    assert least < bound / 1e9 < most
    monkeypatch.setattr(room, "available_bytes", lambda _device: 1_000_000_000)
    with pytest.raises(ValueError, match=rf"solving 0 takes up to {bound / 1e9:.3g} GB, and 1 GB are free; leave it"):
        room.refuse_too_large(one, {}, {"0": bound})


@pytest.mark.parametrize("recipe", ["lord", "eora:rank=4", "svd:rank=4", "modegpt:keep=20"])
def test_a_solve_that_memory_does_not_hold_is_refused_before_any_work(recipe, monkeypatch):
    monkeypatch.setattr(room, "available_bytes", lambda _device: 20_000)
    monkeypatch.setattr("polyad.compress.compression.gather_statistics", lambda *_: pytest.fail("work was done"))
    options = {"keep": 0.8} if recipe == "lord" else {}
    with pytest.raises(ValueError, match=r"the statistics of these layers take|solving .* takes up to"):
        polyad.plan(tiny.model(), recipe, calibrate=TEXT, **options)


PEAK = """
import sys, torch
from polyad.compress.layer_item import LayerItem
from polyad.compress.recipe import steps
from polyad.statistics import Moments
from torch import nn

def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

def solve(out, inner):
    layer, x = nn.Sequential(nn.Linear(inner, out, bias=False)), torch.randn(64, inner)
    item = LayerItem(step, "0")
    return item, layer, {"0": Moments(64, second=x.mT @ x / 64 + torch.eye(inner))}

step = steps(sys.argv[1])[0]
item, layer, stats = solve(16, 16)
item._factor(layer[0].weight.detach(), stats, 4)
item, layer, stats = solve(int(sys.argv[2]), int(sys.argv[3]))
weight = layer[0].weight.detach()
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
item._factor(weight, stats, 4)
print((resident("VmHWM") - before) / item.holds(layer))
"""


@pytest.mark.parametrize(("name", "out", "inner"), [("lord", 60_000, 96), ("eora", 64, 1_200), ("lord", 800, 800)])
def test_a_solve_holds_no_more_than_was_said(name, out, inner):
    run = subprocess.run(
        [sys.executable, "-c", PEAK, f"{name}:rank=4", str(out), str(inner)],
        check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert 0.3 < float(run.stdout) < 1


@pytest.mark.parametrize("shape", [(3_000, 8), (8, 3_000)])
@pytest.mark.parametrize("name", sorted(c.name for c in methods("decompose")))
def test_no_decomposition_of_a_long_matrix_holds_its_long_side_squared(name, shape):
    known, most = card(name), []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            most.extend(t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor))
            return result

    options = {key: value for key, value in known.example.items() if key not in ("x", "max_iter")}
    if "max_iter" in inspect.signature(known.function).parameters:
        options["max_iter"] = 2
    with Sizes(), contextlib.suppress(ValueError, TypeError):  # those of other shapes
        known.function(torch.randn(shape, generator=torch.Generator().manual_seed(0)), **options)
    assert max(most) <= 4 * 24_000


def test_the_memory_that_is_free_is_known_here():
    free = room.available_bytes(torch.device("cpu"))
    assert free is not None
    assert 2**20 < free < 2**50


@pytest.mark.parametrize("recipe", ["modegpt:rules=mlp,keep=20", "svd:rank=3", "rtn:bits=4"])
def test_a_folder_that_is_compressed_already_is_refused_by_layer(recipe, tmp_path):
    model = tiny.model()
    polyad.apply(model, polyad.plan(model, "rtn:bits=8"))
    save(model, tmp_path / "once")
    with pytest.raises(ValueError, match=r"layers.0.self_attn.q_proj is compressed already \(it holds Quantized"):
        polyad.plan(load(tmp_path / "once"), recipe, calibrate=TEXT)


@pytest.mark.parametrize("ridge", [1.0, 0.0])
@pytest.mark.parametrize("dead", ["gate_proj", "up_proj", "down_proj"])
@torch.no_grad()
def test_a_dead_mlp_is_cut_like_any(dead, ridge):
    model = tiny.model()
    getattr(model.model.layers[1].mlp, dead).weight.zero_()
    recipe = functools.partial(modegpt, keep=16, ridge=ridge, rules="mlp")
    polyad.apply(model, polyad.plan(model, recipe, calibrate=TEXT))
    assert model.model.layers[1].mlp.down_proj.in_features == 16
    assert torch.isfinite(tiny.logits(model)).all()


def test_lord_works_on_the_shorter_side_of_a_tall_matrix(monkeypatch):
    sizes = []
    for name in ("eigh", "svd"):
        plain = getattr(torch.linalg, name)
        monkeypatch.setattr(
            torch.linalg, name, lambda x, *a, plain=plain, **k: sizes.append(min(x.shape)) or plain(x, *a, **k)
        )
    stats = collect(nn.Sequential(nn.Linear(16, 4096)), {"0": {"second"}}, [torch.randn(64, 16)])["0"]
    lord(torch.randn(4096, 16), stats, 4)
    assert sizes
    assert max(sizes) == 16
