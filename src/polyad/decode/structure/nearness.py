"""Comparisons of numbers that went through a model with those computed again."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor


def same(value: Tensor, other: Tensor) -> bool:
    """True for tensors of one shape and of the same numbers up to the rounding of their dtypes."""
    if value is other:
        return True
    return value.shape == other.shape and distance(value, other) <= _rounding(value, other)


def distance(value: Tensor, other: Tensor) -> float:
    """The relative distance in the Frobenius norm."""
    value, other = value.detach().double(), other.detach().double()
    return float((value - other).norm() / other.norm().clamp_min(1e-30))


def equal(value: Tensor, other: Tensor) -> bool:
    """True for what is the same tensor, or a copy of it. Where nothing is computed again, near is not enough: some
    models hold numbers so large that a whole attention beside them is a rounding."""
    return value is other or (value.shape == other.shape and torch.equal(value, other))


def multiple(value: Tensor, part: Tensor, stated: Collection[float] = (), base: Tensor | float = 0.0) -> float:
    """The number by which a part is multiplied so that, with ``base``, it makes the value: one or a ``stated`` number
    where that comes nearest."""
    rest, wide = (value - base).detach().double(), part.detach().double()
    estimate = float((rest * wide).sum() / wide.square().sum().clamp_min(1e-300))
    candidates = [1.0, *(n for n in stated if abs(n - estimate) < 0.1 * abs(estimate)), estimate]
    return min(candidates, key=lambda n: distance(base + n * part, value))


def _rounding(*tensors: Tensor) -> float:
    """Models compute norms and rotations in float32, whatever they hold."""
    half = any(t.dtype.itemsize < 4 for t in tensors)
    return 0.01 if half else 100 * torch.finfo(torch.float32).eps
