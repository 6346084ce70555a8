"""Matrices seen as a grid of blocks, with one side taken in runs and the other in steps."""

from __future__ import annotations

import math

from torch import Tensor


def balanced_divisor(n: int) -> int:
    """The divisor of n nearest its root, the smaller of two.

    >>> [balanced_divisor(n) for n in (1, 7, 12, 64, 768)]
    [1, 1, 3, 8, 24]
    """
    return next(k for k in range(math.isqrt(n), 0, -1) if n % k == 0)


def check_interleaved(value: str) -> str:
    """Refuse anything but the two sides of a matrix. Returns the value."""
    if value not in ("rows", "columns"):
        raise ValueError(f'interleaved={value!r} is no side of a matrix; choose "rows" or "columns"')
    return value


def check_blocks(blocks: tuple[int, int] | None, n: int, m: int) -> tuple[int, int]:
    """The numbers of blocks down n rows and along m columns; None takes the divisors nearest the roots."""
    if blocks is None:
        return balanced_divisor(n), balanced_divisor(m)
    if not isinstance(blocks, tuple | list) or len(blocks) != 2:
        raise ValueError(f"blocks={blocks!r} must be two numbers: of blocks down the rows and along the columns")
    for count, size, side in zip(blocks, (n, m), ("rows", "columns"), strict=True):
        if count < 1 or size % count:
            divisors = [d for d in range(1, size + 1) if size % d == 0]
            raise ValueError(f"blocks={tuple(blocks)} does not divide {size} {side}; choose from {divisors}")
    return blocks[0], blocks[1]


def split_blocks(x: Tensor, blocks: tuple[int, int], interleaved: str) -> Tensor:
    """The blocks (*batch, J, K, l, i) of x (*batch, n, m): rows or columns in steps, the other side in runs."""
    (*lead, n, m), (j, k) = x.shape, blocks
    if interleaved == "rows":
        return x.reshape(*lead, n // j, j, k, m // k).movedim(-4, -2)
    return x.reshape(*lead, j, n // j, m // k, k).movedim(-1, -3)


def positions(index: Tensor, blocks: int, size: int, interleaved: str) -> tuple[Tensor, Tensor]:
    """The block of rows that an index falls into, and its place there; one is out of range if the index is."""
    if interleaved == "rows":
        return index % blocks, index // blocks
    return index // size, index % size
