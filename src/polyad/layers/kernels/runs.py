"""Products of a weight's parts, put together as the parts are: packed codes, matrices, chains and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad import formats
from polyad.formats import Dense, Format, LowRank, Sum
from polyad.formats.stored.packed_matrix import PackedMatrix

MOST_INEXACT = 16
"""Rows up to which rows of other dtypes may be rounded to bfloat16: decoding, and no evaluation."""


class KernelRun(Protocol):
    """A product with flat rows: x (rows, in) to (rows, out), in x's dtype; ``name`` says by which kernels."""

    name: str

    def __call__(self, x: Tensor, /) -> Tensor: ...


Most = Callable[[Any, torch.dtype], int]
"""The number of rows up to which a packed format's own product serves rows of a dtype."""


def run_flat(run: KernelRun, x: Tensor) -> Tensor:
    """A product with rows of any shape (…, in)."""
    return run(x) if x.ndim == 2 else run(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class Plain:
    """The format's own product."""

    name = "plain"

    def __init__(self, weight: Format) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return self.weight.linear(x)


class Matrix:
    """A product with a matrix as it is."""

    name = "plain"

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        weight = self.weight
        return F.linear(x, weight if weight.dtype == x.dtype else weight.to(x.dtype))


class Packed:
    """Packed matrices, one after the other: up to ``most`` rows by the packed product, in bfloat16 throughout."""

    def __init__(self, leaves: Sequence[Any], most: int, dtype: torch.dtype) -> None:
        self.leaves, self.most = tuple(leaves), most
        kinds = dict.fromkeys(leaf.kernel for leaf in leaves)
        rest = str(dtype).removeprefix("torch.")
        self.name = f"{'+'.join(kinds)} up to {most} rows, then {rest}" if most else "plain"

    def __call__(self, x: Tensor) -> Tensor:
        if 0 < x.shape[0] <= self.most and not (x.requires_grad and torch.is_grad_enabled()):
            y = x.bfloat16()
            for leaf in self.leaves:
                if y.shape[1] != leaf.wide and y.shape[1] != leaf.shape[1]:
                    y = y[:, : leaf.shape[1]]  # less the padding of the rows of the factor before
                y = leaf.few(y)
            n = self.leaves[-1].shape[0]
            return (y if y.shape[1] == n else y[:, :n]).to(x.dtype)
        if x.dtype == torch.float16:  # many times slower on processors than float32
            return self.multiply_restored(x.float()).to(x.dtype)
        return self.multiply_restored(x)

    def multiply_restored(self, x: Tensor) -> Tensor:
        """The product by matrices restored in x's dtype."""
        for leaf in self.leaves:
            x = leaf.many(x)
        return x


class Chain:
    """One product after the other."""

    def __init__(self, runs: Sequence[KernelRun]) -> None:
        self.runs = tuple(runs)
        self.name = " · ".join(dict.fromkeys(run.name for run in runs))

    def __call__(self, x: Tensor) -> Tensor:
        for run in self.runs:
            x = run(x)
        return x


class Total:
    """The sum of products."""

    def __init__(self, runs: Sequence[KernelRun]) -> None:
        self.runs = tuple(runs)
        self.name = " + ".join(dict.fromkeys(run.name for run in runs))

    def __call__(self, x: Tensor) -> Tensor:
        total = self.runs[0](x)
        for run in self.runs[1:]:
            total = total + run(x)
        return total


def run_for(weight: Format | Tensor, dtype: torch.dtype, most: Most) -> KernelRun:
    """The product of a weight with rows of a dtype, by what its parts are."""
    if isinstance(weight, Tensor):
        return Matrix(weight)
    if isinstance(weight, Dense):
        return Matrix(weight.weight)
    if isinstance(weight, PackedMatrix):
        return Packed([weight], most(weight, dtype), dtype)
    if isinstance(weight, LowRank):
        return Chain([Matrix(weight.right), Matrix(weight.left)])
    if isinstance(weight, Sum):
        return Total([run_for(term, dtype, most) for term in weight.terms])
    if isinstance(weight, formats.Product):
        factors = weight.factors[::-1]
        if all(isinstance(factor, PackedMatrix) for factor in factors):
            return Packed(factors, min(most(factor, dtype) for factor in factors), dtype)
        return Chain([run_for(factor, dtype, most) for factor in factors])
    return Plain(weight)
