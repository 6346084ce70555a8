"""Conv1D of transformers, a linear layer that stores its matrix the other way round."""

import functools

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import polyad
import tiny
from polyad.compress import eora, lord
from polyad.data import Calibration
from polyad.decompose import svd
from polyad.models import collect, compressible, decoder_layers, load, save
from polyad.models.layer_matrices import layer_matrix
from polyad.quantize import round_to_nearest

TEXT = Calibration(tiny.ids(6, 48, seed=2), tiny.ids(2, 32, seed=3), {"ids": "0"})
FIRST = "transformer.h.0.attn.c_attn"
"""A layer of 32 inputs and 96 outputs, stored as (32, 96)."""
RECIPES = {
    "svd": (functools.partial(svd, rank=4), None),
    "svd, by budget": (svd, 0.7),
    "lord": (functools.partial(lord, rank=4), None),
    "centred lord": (functools.partial(lord, rank=4, centre=True), None),
    "rtn": (functools.partial(round_to_nearest, bits=4, group=32), None),
    "rtn+eora": ([functools.partial(round_to_nearest, bits=4), functools.partial(eora, rank=2)], None),
}


@pytest.mark.parametrize("name", RECIPES)
@torch.no_grad()
def test_gpt2_is_compressed_saved_and_loaded_to_the_last_digit(name, tmp_path):
    recipe, keep = RECIPES[name]
    model = tiny.model("gpt2")
    whole = tiny.logits(model)
    plan = polyad.plan(model, recipe, keep=keep, calibrate=TEXT)
    assert len(plan.selected) == 8
    polyad.apply(model, plan)
    cut = tiny.logits(model)
    assert not torch.equal(cut, whole)
    save(model, tmp_path / "cut")
    assert torch.equal(tiny.logits(load(tmp_path / "cut")), cut)


@torch.no_grad()
@pytest.mark.parametrize("select", [None, FIRST, "*"])
def test_factors_of_full_rank_are_the_layer(select):
    model = tiny.model("gpt2")
    whole = tiny.logits(model)
    polyad.apply(model, polyad.plan(model, functools.partial(svd, rank=32), select=select))
    torch.testing.assert_close(tiny.logits(model), whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_groups_and_statistics_lie_along_the_inputs():
    model = tiny.model("gpt2")
    layer = model.get_submodule(FIRST)
    assert layer_matrix(layer).shape == (96, 32)
    stats = collect(model, {FIRST: {"second", "output_square"}}, [tiny.ids()])[FIRST]
    assert (stats.second.shape, stats.output_square.shape) == ((32, 32), (96,))
    plan = polyad.plan(model, functools.partial(round_to_nearest, bits=8, group=8), select=FIRST)
    polyad.apply(model, plan)
    expected = round_to_nearest(tiny.model("gpt2").get_submodule(FIRST).weight.T, 8, group=8).to_dense()
    assert torch.equal(model.get_submodule(FIRST).weight().to_dense(), expected)


def test_the_layers_of_gpt2_are_listed():
    assert list(decoder_layers(tiny.model("gpt2"))) == ["transformer.h.0", "transformer.h.1"]


@torch.no_grad()
def test_a_module_of_ones_own_may_hold_one(tmp_path):
    def small():
        torch.manual_seed(0)
        model = nn.Sequential(Conv1D(6, 8), nn.Tanh(), nn.Linear(6, 3))
        nn.init.normal_(model[0].weight)
        return model

    model, x = small(), torch.randn(5, 8)
    assert list(compressible(model)) == ["0", "2"]
    torch.testing.assert_close(polyad.apply(model, polyad.plan(model, functools.partial(svd, rank=3)))(x), model(x))
    polyad.apply(model := small(), polyad.plan(model, functools.partial(svd, rank=6), select="0"))
    torch.testing.assert_close(model(x), small()(x))
    save(model, tmp_path / "cut")
    assert torch.equal(load(tmp_path / "cut", like=small())(x), model(x))
