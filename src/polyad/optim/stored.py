"""A rule whose moments are kept as codes of eight bits."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyad.optim.moments import moment_dtype
from polyad.optim.transform import State, Transform, take_step

SIGNED = {"mean": True, "square": False}
"""The moments that are kept as codes, True where they may be below zero."""
LEAST = 4096
"""Numbers below which a moment is kept as it is."""


@dataclass(frozen=True)
class StoredMoments:
    """A rule with its ``mean`` and ``square`` in dynamic codes of eight bits, with a float32 scale for each block.

    Codes are nearly equal steps of relative size over seven decades, finer towards the largest number of a block,
    for ``square`` of one sign. A moment of fewer than 4,096 numbers is kept as it is. Each step restores the
    moments of one parameter, takes the rule's step, and rounds them again: 2 + 8 / block bytes a number with two
    moments.

    >>> from polyad.optim import Adam
    >>> transform = StoredMoments(Adam())
    >>> state = transform.init(torch.zeros(64, 64))
    >>> {name: tensor.dtype for name, tensor in state["mean"].items()}
    {'codes': torch.uint8, 'scales': torch.float32}
    """

    rule: Transform
    block: int = 256

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block={self.block} is below 1; give the numbers that share a scale, such as 256")

    def init(self, param: Tensor) -> State:
        return self._closed(self.rule.init(param))

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:
        whole = self._opened(state, param)
        direction = self.rule.update(grad, whole, param)
        state |= self._closed(whole)
        return direction

    def descend(self, param: Tensor, grad: Tensor, state: State, lr: float, decay: float) -> None:
        whole = self._opened(state, param)
        take_step(self.rule, param, grad, whole, lr, decay)
        state |= self._closed(whole)

    def _closed(self, state: State) -> State:
        return {
            name: encode_blocks(value, self.block, signed=SIGNED[name])
            if name in SIGNED and isinstance(value, Tensor) and value.numel() >= LEAST
            else value
            for name, value in state.items()
        }

    def _opened(self, state: State, param: Tensor) -> State:
        return {
            name: decode_blocks(value, signed=SIGNED[name]).to(moment_dtype(param))
            if name in SIGNED and isinstance(value, dict)
            else value
            for name, value in state.items()
        }


@functools.cache
def dynamic_levels(*, signed: bool) -> Tensor:
    """The 256 numbers from -1 or 0 to 1 that codes stand for, rising: decades, each with twice the levels of the one
    below, and zero."""
    decades = 7
    numbers = [0.0, 1.0]
    for i in range(decades):
        count = 2**i if signed else 2 ** (i + 1)
        edges = torch.linspace(0.1, 1, count + 1, dtype=torch.float64)
        middles = ((edges[1:] + edges[:-1]) / 2 * 10.0 ** (i + 1 - decades)).tolist()
        numbers += middles + ([-number for number in middles] if signed else [])
    numbers += [-1.0] if signed and len(numbers) < 256 else []
    return torch.tensor(sorted(numbers)[-256:], dtype=torch.float32)


@functools.cache
def nearest_codes(*, signed: bool) -> Tensor:
    """The code of every number from -1 to 1 by the first sixteen bits of its float32: that of the middle of all that
    share them."""
    middles = ((torch.arange(1 << 16, dtype=torch.int32) << 16) + (1 << 15)).view(torch.float32)
    levels = dynamic_levels(signed=signed)
    return torch.bucketize(middles.nan_to_num(), (levels[1:] + levels[:-1]) / 2).to(torch.uint8)


def encode_blocks(x: Tensor, block: int, *, signed: bool) -> dict[str, Any]:
    """The nearest codes (rows, columns) of a tensor, and the largest number of each block in float32.

    A number between two levels may take the farther one where it is nearer to their middle than 2^-8 of itself.
    """
    flat = x.reshape(-1).float()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    scales = blocks.abs().amax(1, keepdim=True)
    shares = blocks / torch.where(scales > 0, scales, 1)
    words = (shares.view(torch.int32) >> 16).bitwise_and_(0xFFFF)
    codes = nearest_codes(signed=signed).to(x.device)[words.view(-1)[: len(flat)]]
    return {"codes": codes.reshape(x.shape), "scales": scales[:, 0].clone()}


def decode_blocks(stored: dict[str, Any], *, signed: bool) -> Tensor:
    """The inverse of ``encode_blocks``, to the rounding of the codes, in float32."""
    codes, scales = stored["codes"], stored["scales"]
    values = dynamic_levels(signed=signed).to(codes.device)[codes.reshape(-1).int()]
    block = -(-len(values) // len(scales))
    rest = len(scales) * block - len(values)
    return (
        (torch.nn.functional.pad(values, (0, rest)).view(-1, block) * scales[:, None])
        .view(-1)[: len(values)]
        .view(codes.shape)
    )
