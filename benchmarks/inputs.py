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


def regular_network(n: int = 30, bond: int = 3, seed: int = 0) -> tuple[str, list[Tensor]]:
    """A closed network over a random 3-regular graph of n tensors: its einsum and normal float64 operands."""
    generator = seeded(seed)
    while True:  # a random pairing of half-edges, drawn again until it has neither loops nor double edges
        ends = torch.arange(n).repeat_interleave(3)[torch.randperm(3 * n, generator=generator)].reshape(-1, 2)
        edges = {(min(a, b), max(a, b)) for a, b in ends.tolist()}
        if len(edges) == len(ends) and all(a != b for a, b in edges):
            return _closed(sorted(edges), n, bond, generator)


def lattice_network(rows: int = 5, columns: int = 6, bond: int = 3, seed: int = 0) -> tuple[str, list[Tensor]]:
    """A closed network over a square lattice with open edges: its einsum and normal float64 operands."""
    place = torch.arange(rows * columns).reshape(rows, columns)
    edges = [*zip(place[:, :-1].flatten().tolist(), place[:, 1:].flatten().tolist(), strict=True)]
    edges += zip(place[:-1].flatten().tolist(), place[1:].flatten().tolist(), strict=True)
    return _closed(edges, rows * columns, bond, seeded(seed))


def _closed(edges: list[tuple[int, int]], n: int, bond: int, generator: Generator) -> tuple[str, list[Tensor]]:
    letters = [chr(97 + i) if i < 26 else chr(192 + i) for i in range(len(edges))]
    terms = ["".join(c for c, ends in zip(letters, edges, strict=True) if i in ends) for i in range(n)]
    operands = [torch.randn([bond] * len(term), generator=generator, dtype=torch.float64) for term in terms]
    return ",".join(terms) + "->", [x / bond**0.5 for x in operands]
