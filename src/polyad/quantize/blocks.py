"""Blocks of entries that share a scale: their shape, and tensors cut into them and put together again."""

from __future__ import annotations

import torch
from torch import Tensor


def block_shape(shape: tuple[int, ...], group: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The block along every axis, never longer than the axis."""
    ends = (shape[-1],) if group is None else tuple(group) if isinstance(group, tuple | list) else (group,)
    whole = all(hasattr(end, "__index__") and not isinstance(end, bool) for end in ends)
    if not 1 <= len(ends) <= len(shape) or not whole or min(ends) < 1:
        raise ValueError(
            f"group={group!r} does not fit x of shape {shape}; give a number of entries of at least 1, or one such "
            f"number for each of the last axes (up to {len(shape)})"
        )
    block = (1,) * (len(shape) - len(ends)) + ends
    return tuple(min(b, n) for b, n in zip(block, shape, strict=True))


def grid_shape(shape: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    """The number of blocks along every axis; the last block may be shorter."""
    return tuple(-(-n // b) for n, b in zip(shape, block, strict=True))


def cut_blocks(x: Tensor, block: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """x with every blocked axis split into (blocks, block), and the axes that run inside a block."""
    parts: list[int] = []
    inside: list[int] = []
    for axis, b in enumerate(block):
        short = -x.shape[axis] % b
        if short:  # repeat the last entries, which changes neither minimum nor maximum of their block
            last = x.narrow(axis, -1, 1)
            x = torch.cat([x, last.expand(*x.shape[:axis], short, *x.shape[axis + 1 :])], axis)
        if b > 1 or axis == len(block) - 1:
            parts += [x.shape[axis] // b, b]
            inside.append(len(parts) - 1)
        else:
            parts.append(x.shape[axis])
    return x.reshape(parts), tuple(inside)


def join_blocks(codes: Tensor, shape: tuple[int, ...], block: tuple[int, ...]) -> Tensor:
    """The codes of ``cut_blocks``, shaped as x was."""
    codes = codes.reshape([k * b for k, b in zip(grid_shape(shape, block), block, strict=True)])
    return codes[tuple(slice(n) for n in shape)]


def present_numbers(parted: Tensor, shape: tuple[int, ...], block: tuple[int, ...]) -> Tensor | None:
    """Zeros for what fills up a short block, equal numbers of mean 1 for its own; None where no block is short."""
    short = [-n % b for n, b in zip(shape, block, strict=True)]
    if not any(short):
        return None
    padded = torch.nn.functional.pad(parted.new_ones(shape), [n for s in reversed(short) for n in (0, s)])
    parts, axes = cut_blocks(padded, block)
    return parts / parts.mean(axes, keepdim=True)
