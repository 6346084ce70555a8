"""The inputs of the decomposition benchmarks: written down once, seeded, shared by polyad and its peers."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def planted_train(shape: tuple[int, ...], rank: int, *, seed: int = 0) -> list[Tensor]:
    """Normal float64 cores (r, n, s) of a tensor train with this rank at every bond."""
    generator, ends = seeded(seed), len(shape) - 1
    sizes = [(rank if i else 1, n, rank if i < ends else 1) for i, n in enumerate(shape)]
    return [torch.randn(size, generator=generator, dtype=torch.float64) / rank**0.5 for size in sizes]


def inflated_train(shape: tuple[int, ...], rank: int, inflated: int, *, seed: int = 0) -> list[Tensor]:
    """``planted_train`` with larger bonds: a random matrix and its pseudo-inverse between neighbouring cores."""
    cores, generator = planted_train(shape, rank, seed=seed), seeded(seed + 1)
    for i in range(len(shape) - 1):
        wide = torch.randn(rank, inflated, generator=generator, dtype=torch.float64)
        cores[i], cores[i + 1] = cores[i] @ wide, torch.tensordot(torch.linalg.pinv(wide), cores[i + 1], 1)
    return cores


def train_to_dense(cores: list[Tensor]) -> Tensor:
    """The tensor of cores (r, n, s) with outer bonds of size one."""
    x = cores[0]
    for core in cores[1:]:
        x = torch.tensordot(x, core, 1)
    return x.squeeze(0).squeeze(-1)


def smooth(shape: tuple[int, ...], *, noise: float = 0.0, seed: int = 0) -> Tensor:
    """1 / (1 + Σ (i + 1) tᵢ / N) on a grid of [0, 1] in each of N variables, with noise of this relative norm."""
    x = torch.ones((), dtype=torch.float64)
    for i, n in enumerate(shape):
        x = x.unsqueeze(-1) + torch.linspace(0, 1, n, dtype=torch.float64) * (i + 1) / len(shape)
    x = 1 / x
    e = torch.randn(x.shape, generator=seeded(seed), dtype=torch.float64)
    return x + e * (noise * x.norm() / e.norm())


def functions(n: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions of an index (N, d) on a grid of n points of [0, 1] in each variable, for cross approximation."""

    def on(index: Tensor) -> Tensor:
        return index.double() / (n - 1)

    return {
        "1 / (1 + sum x)": lambda index: 1 / (1 + on(index).sum(1)),
        "sin(sum x)": lambda index: torch.sin(on(index).sum(1)),
        "sqrt(sum x^2)": lambda index: on(index).square().sum(1).sqrt(),
        "exp(-sum x)": lambda index: torch.exp(-on(index).sum(1)),
        "1 / (1 + sum i)": lambda index: 1 / (1 + index.double().sum(1)),
        "exp(-|x| / sqrt d)": lambda index: torch.exp(-on(index).square().mean(1).sqrt()),
    }


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


def rows_of(count: int, n: int, *, seed: int = 0) -> Tensor:
    """A float32 batch of normal rows, (count, n), to which a matrix is applied."""
    return torch.randn(count, n, generator=seeded(seed))


def planted_matrix(kind: type, n: int, *, noise: float = 0.0, seed: int = 0) -> Tensor:
    """A dense float32 (n, n) matrix of this format as its ``random`` draws it, and noise of this relative norm."""
    x = kind.random((n, n), generator=seeded(seed)).to_dense()
    e = torch.randn(n, n, generator=seeded(seed + 1))
    return x + e * (noise * x.norm() / e.norm())


def _noisy(x: Tensor, noise: float, seed: int) -> Tensor:
    e = torch.randn(x.shape, generator=seeded(seed + 1), dtype=x.dtype)
    return x + e * (noise * x.norm() / e.norm())


def planted_kronecker(side: int, rank: int, *, noise: float = 0.0, seed: int = 0) -> Tensor:
    """A float64 matrix (side², side²), a sum of ``rank`` Kronecker products of normal (side, side) matrices."""
    first, second = (torch.randn(rank, side, side, generator=seeded(seed + i), dtype=torch.float64) for i in (0, 7))
    return _noisy(torch.einsum("kac,kbd->abcd", first, second).reshape(side**2, side**2), noise, seed)


def planted_tubal(n: int, length: int, rank: int, *, noise: float = 0.0, seed: int = 0) -> Tensor:
    """A float64 tensor (n, n, length) of this tubal rank with normal factors."""
    left, right = (torch.randn(n, rank, length, generator=seeded(seed + i), dtype=torch.float64) for i in (0, 7))
    product = torch.einsum("irk,jrk->ijk", torch.fft.rfft(left), torch.fft.rfft(right))
    return _noisy(torch.fft.irfft(product, n=length), noise, seed)


def planted_block_terms(n: int, terms: int, *, noise: float = 0.0, seed: int = 0) -> Tensor:
    """A float64 tensor n³, a sum of Tucker terms of ranks (2, 2, 2) with normal cores and factors."""
    g = seeded(seed)
    core = torch.randn(terms, 2, 2, 2, generator=g, dtype=torch.float64)
    factors = [torch.randn(terms, n, 2, generator=g, dtype=torch.float64) for _ in range(3)]
    return _noisy(torch.einsum("zabc,zia,zjb,zkc->ijk", core, *factors), noise, seed)


def long_range(particles: int, *, widest: float = 5.0) -> Callable[..., Tensor]:
    """The long-range part of a sum of ± 1 / r over random particles in [-1, 1]³, on product grids, as Gaussians."""
    g = seeded(particles)
    centres = 2 * torch.rand(particles, 3, generator=g, dtype=torch.float64) - 1
    charges = torch.randint(0, 2, (particles,), generator=g).double() * 2 - 1
    rates = (torch.arange(-20.0, math.log(widest) / 0.3, dtype=torch.float64) * 0.3).exp()

    def potential(*axes: Tensor) -> Tensor:
        total = torch.zeros([len(axis) for axis in axes], dtype=torch.float64)
        for rate in rates:
            x, y, z = ((-(rate * (a - centres[:, n : n + 1])).square()).exp() for n, a in enumerate(axes))
            total += rate * torch.einsum("pi,pj,pk->ijk", x * charges.unsqueeze(-1), y, z)
        return total

    return potential


def planted_tucker(shape: tuple[int, ...], rank: tuple[int, ...], *, noise: float = 0.0, seed: int = 0) -> Tensor:
    """A float64 tensor of these multilinear ranks, normal core and factors, and noise of this relative norm."""
    generator = seeded(seed)
    x = torch.randn(rank, generator=generator, dtype=torch.float64)
    for mode, (n, r) in enumerate(zip(shape, rank, strict=True)):
        factor = torch.randn(n, r, generator=generator, dtype=torch.float64)
        x = torch.tensordot(x, factor, ([0], [1]))  # the mode goes to the end: after all of them the order is right
        assert x.shape[-1] == shape[mode]
    e = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return (x + e * (noise * x.norm() / e.norm())).contiguous()


def planted_spectrum(n: int, spectrum: Tensor, seed: int = 0) -> Tensor:
    """A float64 matrix (n, n) with these singular values and vectors from three random reflections a side."""
    generator = seeded(seed)
    x = torch.diag(spectrum.double())
    for _ in range(2):
        for _ in range(3):
            w = torch.randn(n, generator=generator, dtype=torch.float64)
            x = x - torch.outer(w, w @ x) * (2 / w.square().sum())
        x = x.mT.contiguous()
    return x


def nonnegative_cp_input(n: int, rank: int) -> Tensor:
    """A float64 (n, n, n) tensor of uniform factors on [0, 1) of this rank, and normal noise of 1 % of its norm."""
    generator = seeded()
    a, b, c = (torch.rand(n, rank, generator=generator, dtype=torch.float64) for _ in range(3))
    x = torch.einsum("ar,br,cr->abc", a, b, c)
    e = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x + e * (0.01 * x.norm() / e.norm())


def scattered(n: int, nnz: int) -> Tensor:
    """A coalesced sparse float64 (n, n, n) tensor: nnz places drawn uniformly, with values uniform on [0, 1)."""
    generator = seeded()
    index = torch.randint(n, (3, nnz), generator=generator)
    values = torch.rand(nnz, generator=generator, dtype=torch.float64)
    return torch.sparse_coo_tensor(index, values, (n, n, n), check_invariants=False).coalesce()
