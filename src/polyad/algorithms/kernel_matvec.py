"""Products with Gaussian kernel matrices, most of whose entries are nearly zero and are never computed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.linalg.sketch import default_generator

_CHUNK = 1 << 22  # numbers held at once


@method(
    "sketch",
    example={
        "arguments": lambda g: _draw_clusters(g),
        "exact": lambda queries, keys, x, **_: _kernel(queries.double(), keys.double()) @ x.double(),
        "bound": lambda x, eps, **_: eps * float(x.double().norm()),
        "scale": ("x",),
    },
    papers=(
        Paper("Indyk, Kapralov, Sheth, Wagner", 2025,
              "Improved Algorithms for Kernel Matrix-Vector Multiplication Under Sparsity Assumptions",
              "arXiv:2507.23539", "sparse-kernel-mv",
              "heavy entries exactly, light ones by sampling, under a kernel sum that grows linearly"),
        Paper("Datar, Immorlica, Indyk, Mirrokni", 2004,
              "Locality-sensitive hashing scheme based on p-stable distributions", "doi:10.1145/997817.997857"),
    ),
)  # fmt: skip
def kernel_matvec(
    queries: Tensor, keys: Tensor, x: Tensor, *, bandwidth: float = 1.0, eps: float = 0.5, tables: int = 12,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """y (n,) with ‖K x − y‖ ≤ eps ‖x‖ in expectation, K_ij = exp(−‖q_i − k_j‖² / 2 bandwidth²), for x of any signs.

    Takes queries (n, d), keys (m, d) and x (m,) and assumes that the entries of K sum to about n. Pairs with
    K_ij ≥ eps / √n are sought by hashing with ``near_pairs`` and computed exactly; everything else is estimated from
    √m / eps keys drawn with chances proportional to x_j², the draw whose variance Σ K_ij² ‖x‖² does not see signs.
    Light entries then add up to Σ K_ij² ≤ (eps / √n) Σ K_ij, so the error stays below eps ‖x‖ with about n^1.5 / eps
    entries computed. Pairs that hashing misses are among the sampled: they cost variance, never bias. Where the sum
    of K grows faster than n, the bound is lost.

    Departures: the paper's hashing and its exponent are for proofs; here are ``tables`` tables of p-stable hashes,
    and one sample is shared by all queries. Computed in float64 if given so, else in float32. Not differentiable.

    Raises ValueError for sizes that do not match, bandwidth or eps that are not positive, NaN and infinities.

    >>> q = torch.arange(50.0).unsqueeze(1)
    >>> y = kernel_matvec(q, q, torch.ones(50), bandwidth=0.1)
    >>> bool((y - 1).norm() < 0.5 * 50**0.5)
    True
    """
    _check_points(queries, keys)
    _check.finite("x", _check.floating("x", x))
    if x.shape != (len(keys),):
        raise ValueError(f"x of shape {tuple(x.shape)} must have one number a key, shape ({len(keys)},)")
    _check.rank(tables, 1 << 20, "what is sensible", "tables")
    if not (bandwidth > 0 and eps > 0):
        raise ValueError(f"bandwidth={bandwidth} and eps={eps} must be positive")
    dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32
    q, k = (t.detach().to(dtype) / bandwidth for t in (queries, keys))
    largest = x.detach().abs().max()
    if largest == 0:
        return torch.zeros(len(queries), dtype=x.dtype, device=x.device)
    weights = (x.detach() / largest).to(dtype)
    generator = default_generator(generator)
    n, m = len(queries), len(keys)
    if (count := sample_size(m, eps)) >= m:
        y = torch.cat([_kernel(part, k) @ weights for part in q.split(max(1, _CHUNK // m))])
        return (y * largest).to(x.dtype)
    radius = math.sqrt(2 * max(math.log(math.sqrt(n) / eps), 0.5))
    i, j = near_pairs(q, k, radius=radius, tables=tables, generator=generator)
    chance = weights.square() / weights.square().sum()
    sampled_keys = torch.multinomial(chance.cpu(), count, replacement=True, generator=generator).to(x.device)
    y = weights.new_zeros(n)
    for rows, columns in zip(i.split(_CHUNK // 64), j.split(_CHUNK // 64), strict=True):
        entries = torch.exp(-(q[rows] - k[columns]).square().sum(1) / 2)
        y.index_add_(0, rows, entries * weights[columns])
    return ((y + _light(q, k, weights, chance, sampled_keys, i * m + j)) * largest).to(x.dtype)


def sample_size(keys: int, eps: float) -> int:
    """The number of keys drawn for the light entries of every query.

    >>> sample_size(10_000, 0.5)
    200
    """
    return math.ceil(math.sqrt(keys) / eps)


def near_pairs(
    queries: Tensor, keys: Tensor, *, radius: float, tables: int = 12, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Indices (p,) and (p,) of most pairs of a query and a key that are within ``radius``, and of some others.

    A table cuts random projections into cells of width 4 radius; two points meet if all their cells agree, which
    near ones do with chance about 0.8 a projection. There are log₂(m) / 2 projections a table. Sorted, without
    repetition. Cost: (n + m) (d log m) a table, and what is found.

    >>> i, j = near_pairs(torch.tensor([[0.0], [9.0]]), torch.tensor([[9.1], [0.1]]), radius=0.2)
    >>> i.tolist(), j.tolist()
    ([0, 1], [1, 0])
    """
    _check_points(queries, keys)
    generator = default_generator(generator)
    width, d, m = 4 * radius, queries.shape[1], len(keys)
    projections = max(1, round(math.log2(max(m, 2)) / 2))
    pair_numbers = []
    for _ in range(tables):
        directions = torch.randn(d, projections, generator=generator, dtype=torch.float64).to(queries)
        shift = torch.rand(projections, generator=generator, dtype=torch.float64).to(queries)
        mix = torch.randint(1, 1 << 62, (projections,), generator=generator).to(queries.device) | 1
        codes = [((t @ directions / width + shift).floor().long() * mix).sum(1) for t in (queries, keys)]
        sorted_codes, order = codes[1].sort()
        start = torch.searchsorted(sorted_codes, codes[0])
        count = torch.searchsorted(sorted_codes, codes[0], right=True) - start
        i = torch.repeat_interleave(torch.arange(len(queries), device=queries.device), count)
        within = torch.arange(len(i), device=i.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
        pair_numbers.append(i * m + order[start[i] + within])
    pairs = torch.cat(pair_numbers).unique()
    return pairs // m, pairs % m


def _light(q: Tensor, k: Tensor, x: Tensor, chance: Tensor, sample: Tensor, pairs: Tensor) -> Tensor:
    """The sum over all keys but the pairs found, estimated from the sampled keys."""
    m, out = len(k), []
    step = max(1, _CHUNK // max(len(sample), 1))
    value = x[sample] / (chance[sample] * len(sample))
    for first in range(0, len(q), step):
        part = q[first : first + step]
        entries = _kernel(part, k[sample])
        ids = (torch.arange(first, first + len(part), device=q.device).unsqueeze(1) * m + sample).flatten()
        if len(pairs):
            place = torch.searchsorted(pairs, ids).clamp(max=len(pairs) - 1)
            entries = entries * (pairs[place] != ids).view_as(entries)
        out.append(entries @ value)
    return torch.cat(out)


def _kernel(q: Tensor, k: Tensor) -> Tensor:
    return torch.exp(-torch.cdist(q, k, compute_mode="donot_use_mm_for_euclid_dist").square() / 2)


def _check_points(queries: Tensor, keys: Tensor) -> None:
    """Refuse all but two matrices of points with one number of coordinates."""
    for name, t in (("queries", queries), ("keys", keys)):
        _check.finite(name, _check.dimensions(name, _check.floating(name, t), 2))
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"queries of shape {tuple(queries.shape)} and keys of shape {tuple(keys.shape)} must be matrices of "
            "points with as many coordinates; loop over heads"
        )


def _draw_clusters(generator: Generator) -> dict[str, Any]:
    """Queries and keys around thirty centres, four of each, and a vector of both signs."""
    centres = 6 * _normal(30, 4, generator)
    queries, keys = (centres.repeat(4, 1) + 0.25 * _normal(120, 4, generator) for _ in range(2))
    return {"queries": queries, "keys": keys, "x": _normal(120, 1, generator).squeeze(1), "eps": 0.5, "tables": 4}


def _normal(n: int, m: int, generator: Generator) -> Tensor:
    return torch.randn(n, m, generator=generator, dtype=torch.float64)
