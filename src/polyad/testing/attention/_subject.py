"""The layer of a card's example, and inputs that it takes."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from polyad._card import Card
from polyad.attention.rotary import tables
from polyad.testing._contract import normal, relative_error

ABOUT = ("x", "table", "parameters", "held", "out")
"""Names in an example that are no arguments of the layer."""
PIECES = (10, 1, 9, 4, 1, 5)
"""Tokens of the calls of one decoding: more and fewer than are attended to one by one, with and without a past."""
TOKENS = sum(PIECES)
ROUNDED = 1e-9
"""The relative error of what differs by roundings alone, in float64."""


def layer_of(card: Card, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The layer of the card's example, with random numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stated = {name: value for name, value in card.example.items() if name not in ABOUT}
        arguments = {name: value() if isinstance(value, FunctionType) else value for name, value in stated.items()}
        return card.function(**arguments).to(dtype)


def input_of(card: Card, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random input of the shape that the example states; ``TOKENS`` of them where there are tokens."""
    shape = list(card.example["x"])
    if takes(card, "past_key_values"):
        shape[1] = TOKENS
    return normal(*shape, dtype=dtype)


def call(card: Card, layer: nn.Module, x: Tensor, *, first: int = 0, **more: Any) -> Tensor:
    """The output for x, whose first token is number ``first``."""
    if takes(card, "position_embeddings"):
        cos, sin = tables(first, x.shape[1], card.example["table"])
        more["position_embeddings"] = cos.to(x), sin.to(x)
    out = layer(x, **more)
    return out[0] if isinstance(out, tuple) else out


def takes(card: Card, name: str) -> bool:
    """The layer's forward pass has an argument of this name."""
    assert isinstance(card.function, type), f"{card.name} of kind layer is no class"
    return name in inspect.signature(card.function.forward).parameters  # pyright: ignore[reportAttributeAccessIssue]


def assert_near(result: Tensor, expected: Tensor, within: float, what: str) -> None:
    """Equal shapes, and a relative error of at most ``within``."""
    assert result.shape == expected.shape, f"{what}: the shapes are {tuple(result.shape)}, {tuple(expected.shape)}"
    off = relative_error(result.detach(), expected.detach())
    assert off <= within, f"{what}: {off:.3g} apart, more than rounding allows ({within:.3g})"
