"""What cannot be done is known before the work: memory, dead layers, layers that are compressed already."""

import functools

import pytest
import torch
from torch import nn

import polyad
import tiny
from polyad.compress import lord, modegpt
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
