"""The inputs of the decomposition benchmarks: written down once, seeded, shared by polyad and its peers."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def seeded(seed: int = 0) -> Generator:
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def planted_cp(shape: tuple[int, ...], rank: int, *, noise: float = 0.0, seed: int = 0) -> Tensor:
    """A float64 tensor of this CP rank with uniform factors on [0, 1) less 1/2, and noise of this relative norm."""
    generator = seeded(seed)
    letters = "abcdefgh"[: len(shape)]
    factors = [torch.rand(n, rank, generator=generator, dtype=torch.float64) - 0.5 for n in shape]
    x = torch.einsum(",".join(f"{c}z" for c in letters) + "->" + letters, *factors)
    e = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x + e * (noise * x.norm() / e.norm())


def correlated_cp(shape: tuple[int, ...], rank: int, kind: str, *, noise: float = 0.0, seed: int = 0) -> Tensor:
    """A float64 tensor of this CP rank with uniform factors, and noise of this relative norm.

    ``kind`` is "centred" (on [-1/2, 1/2)), "uniform" (on [0, 1), so that columns have cosines of about 3/4) or
    "correlated" (centred, and one vector 1.5 times as long added to all columns of a factor).
    """
    generator = seeded(seed)
    letters = "abcdefgh"[: len(shape)]
    factors = [torch.rand(n, rank, generator=generator, dtype=torch.float64) for n in shape]
    if kind != "uniform":
        factors = [factor - 0.5 for factor in factors]
    if kind == "correlated":
        shared = [torch.rand(n, 1, generator=generator, dtype=torch.float64) - 0.5 for n in shape]
        factors = [factor + 1.5 * one for factor, one in zip(factors, shared, strict=True)]
    x = torch.einsum(",".join(f"{c}z" for c in letters) + "->" + letters, *factors)
    e = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x + e * (noise * x.norm() / e.norm())
