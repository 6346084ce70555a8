"""Reading of an MLP: a gate or none, and the activation that makes the numbers seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad.decode.outline import Mlp, NoLoopError
from polyad.decode.structure.linears import linear_calls, other_calls
from polyad.decode.structure.nearness import equal, same
from polyad.decode.structure.trace import Trace


def squared_relu(x: Tensor) -> Tensor:
    """``relu(x) ** 2``."""
    return F.relu(x).square()


ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    F.silu, F.gelu, partial(F.gelu, approximate="tanh"), F.relu, squared_relu, F.sigmoid, torch.tanh,
)  # fmt: skip
"""Activations that are one or two calls of torch; others are called as the model's own module."""


def read_mlp(trace: Trace, layer: nn.Module, attention: nn.Module, what: str) -> tuple[Mlp, Tensor, Tensor]:
    """The MLP of a decoder layer, all of whose linear layers outside of its attention it is; its input and output."""
    linears = linear_calls(trace, layer, without=attention)
    if len(linears) not in (2, 3) or not all(equal(c[1], linears[0][1]) for c in linears[:-1]):
        raise NoLoopError(f"{what} has {len(linears)} linear layers outside of its attention, which are no MLP")
    (*ups, down) = linears
    others = other_calls(trace, layer, linears, without=attention)
    acts = [*ACTIVATIONS, *(m for m, x, _ in others if x.shape == down[1].shape or x.shape == ups[0][2].shape)]
    mlp = _gated(ups, down, acts) if len(ups) == 2 else _single(ups[0], down, acts)
    if mlp is None:
        raise NoLoopError(f"{what}: its MLP multiplies no activation that is known here")
    return mlp, linears[0][1], down[2]


def _gated(ups: list[Any], down: Any, acts: list[Any]) -> Mlp | None:
    for gate, other in (ups, ups[::-1]):
        for act in acts:
            if gate[2].shape == other[2].shape and same(_run(act, gate[2]) * other[2], down[1]):
                return Mlp((gate[0], other[0]), down[0], act)
    return None


def _single(up: Any, down: Any, acts: list[Any]) -> Mlp | None:
    for act in acts:
        if up[2].shape == down[1].shape:
            if same(_run(act, up[2]), down[1]):
                return Mlp((up[0],), down[0], act)
        elif up[2].shape[-1] == 2 * down[1].shape[-1]:
            halves = up[2].chunk(2, -1)
            for i in (0, 1):
                if same(_run(act, halves[i]) * halves[1 - i], down[1]):
                    return Mlp((up[0],), down[0], act, i)
    return None


@torch.no_grad()
def _run(act: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return act(x)
