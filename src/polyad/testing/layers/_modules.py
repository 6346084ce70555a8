"""The modules that the contract of layers is held on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyad.formats import Format
from polyad.layers import Conv, Embedding, Linear
from polyad.testing._contract import normal, seeded_generator

Check = Callable[[Format], None]


@dataclass(frozen=True)
class LayerCase:
    """A module that holds a format, the input it takes, and torch's own module of the same sizes."""

    module: Linear | Embedding | Conv
    input: Tensor
    peer: nn.Module


def example(kind: type[Format]) -> Format:
    """A random float32 matrix of a kind, on which the checks of this suite run: (6, 12), or square, (12, 12)."""
    return kind.random((6, 12) if kind.fits((6, 12)) else (12, 12), generator=seeded_generator())


def modules(format: Format) -> tuple[LayerCase, ...]:
    """Linear, Embedding and Conv that hold a copy of a format of an even number of columns."""
    out, n = format.shape
    copies = [copy.deepcopy(format) for _ in range(3)]
    geometry = {"stride": (1,), "padding": (1,), "dilation": (1,), "groups": 1}
    linear, conv = nn.Linear(n, out), nn.Conv1d(n // 2, out, 2, padding=1)
    index = torch.arange(out).reshape(-1, 1).repeat(1, 2)
    return (
        LayerCase(Linear(copies[0], normal(out)), normal(4, 3, n), linear),
        LayerCase(Embedding(copies[1]), index, nn.Embedding(out, n)),
        LayerCase(Conv(copies[2], normal(out), (2,), geometry), normal(4, n // 2, 8), conv),
    )
