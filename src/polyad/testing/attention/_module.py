"""Checks of every layer: shapes and sizes as stated, gradients, rows that stand alone, dtypes, and being saved."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import DynamicCache

import polyad
from polyad._card import Card
from polyad.testing._contract import normal
from polyad.testing.attention._subject import ROUNDED, assert_near, call, input_of, layer_of, takes


def shape(card: Card) -> None:
    """The output has the shape of the input, or the one that the example states, and depends on all of the input."""
    layer, x = layer_of(card), input_of(card).requires_grad_()
    out = call(card, layer, x)
    expected = tuple(card.example.get("out", x.shape))
    assert tuple(out.shape) == expected, f"{card.name} makes {tuple(out.shape)} of {tuple(x.shape)}, not {expected}"
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    assert bool((grad != 0).all()), f"the output of {card.name} does not depend on all of x"


def sizes(card: Card) -> None:
    """It trains as many numbers, and leaves as many a token in a cache, as the example states."""
    layer = layer_of(card)
    trained = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    stated = card.example.get("parameters")
    assert trained == stated, f"{card.name} trains {trained} numbers; its example states parameters={stated}"
    if not takes(card, "past_key_values"):
        return
    cache, x = DynamicCache(), input_of(card)
    call(card, layer, x, past_key_values=cache)
    numbers = sum(t.numel() for each in cache.layers for t in (each.keys, each.values))  # pyright: ignore
    count, stated = numbers / (x.shape[0] * x.shape[1]), card.example.get("held")
    assert count == stated, f"{card.name} leaves {count:g} numbers a token; its example states held={stated}"


def gradients(card: Card) -> None:
    """Gradients agree with finite differences in float64, and reach every parameter and x."""
    layer, x = layer_of(card), input_of(card).requires_grad_()
    named = {"x": x} | {name: p for name, p in layer.named_parameters() if p.requires_grad}
    probe = normal(*call(card, layer, x).shape, dtype=torch.float64, seed=3)

    def run(*_: Tensor) -> Tensor:
        return (call(card, layer, x) * probe).sum()

    assert torch.autograd.gradcheck(run, tuple(named.values()), fast_mode=True)
    grads = torch.autograd.grad(run(), tuple(named.values()), allow_unused=True)
    for name, grad in zip(named, grads, strict=True):
        assert grad is not None, f"no gradient reaches {name} of {card.name}"
        assert bool((grad != 0).any()), f"the gradient of {name} of {card.name} is zero"


def rows(card: Card) -> None:
    """A row of the batch is the same alone, in another place, and beside much larger ones."""
    layer, x = layer_of(card), input_of(card)
    right = call(card, layer, x)
    assert_near(call(card, layer, x[1:2]), right[1:2], ROUNDED, f"a row of {card.name} alone and among others")
    assert_near(call(card, layer, x.flip(0)), right.flip(0), ROUNDED, f"rows of {card.name} in another order")
    larger = torch.cat([x[:1], 1000 * x[1:]])
    assert_near(call(card, layer, larger)[:1], right[:1], ROUNDED, f"a row of {card.name} beside larger ones")


def precision(card: Card) -> None:
    """The output has the input's dtype, and is that of float64 up to roundings."""
    right = call(card, layer_of(card), input_of(card))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        out = call(card, layer_of(card, dtype=dtype), input_of(card, dtype))
        assert out.dtype == dtype, f"{card.name} in {dtype} makes {out.dtype}"
        assert_near(out, right, 8 * torch.finfo(dtype).eps, f"{card.name} in {dtype} and in float64")


def storage(card: Card) -> None:
    """Copied, loaded from a state dict, or saved to a folder and loaded, it gives the same to the last digit."""
    layer, x = layer_of(card), input_of(card)
    right = call(card, layer, x)
    assert torch.equal(call(card, copy.deepcopy(layer), x), right), f"a copy of {card.name} gives something else"
    other = layer_of(card, seed=1)
    assert not torch.equal(call(card, other, x), right), f"{card.name} gives the same with other random numbers"
    other.load_state_dict(layer.state_dict())
    assert torch.equal(call(card, other, x), right), f"{card.name} loaded from its state dict gives something else"
    with tempfile.TemporaryDirectory() as folder:
        written = polyad.save(nn.ModuleDict({"layer": layer}), Path(folder) / "saved")
        loaded = polyad.load(written, like=nn.ModuleDict({"layer": layer_of(card, seed=2)}))["layer"]
    assert type(loaded) is type(layer), f"{card.name} is loaded as a {type(loaded).__name__}"
    assert torch.equal(call(card, loaded, x), right), f"{card.name} loaded from a folder gives something else"
