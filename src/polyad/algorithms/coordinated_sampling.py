"""Sketches of single matrices, from two of which the product of the matrices is estimated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method


@dataclass(frozen=True, eq=False)
class CoordinatedSketch:
    """Rows of a matrix, sorted by their keys, with the chance p_i = min(1, τ w_i) with which each was kept.

    ``keys`` (k,), ``rows`` (k, d) and ``chance`` (k,). Sketches made with one seed share their random numbers, so
    that a row of A and the row of B with the same key are kept together with chance min(p_i(A), p_i(B)).
    """

    keys: Tensor
    rows: Tensor
    chance: Tensor
    seed: int

    def product(self, other: CoordinatedSketch) -> Tensor:
        """An estimate of AᵀB, shape (d, e), from the sketches of A and B; unbiased over seeds.

        Its expected squared Frobenius error is at most 2 ‖A‖² ‖B‖² / k with k the smaller of the two sizes.
        """
        if self.seed != other.seed:
            raise ValueError(f"the sketches were made with the seeds {self.seed} and {other.seed}; use one for both")
        if not len(self.keys) or not len(other.keys):
            return self.rows.new_zeros(self.rows.shape[1], other.rows.shape[1])
        place = torch.searchsorted(self.keys, other.keys).clamp(max=len(self.keys) - 1)
        shared = self.keys[place] == other.keys
        place = place[shared]
        chance = torch.minimum(self.chance[place], other.chance[shared])
        return (self.rows[place] / chance.unsqueeze(1)).T @ other.rows[shared]


@method(
    "sketch",
    example={
        "arguments": lambda g: _draw_rows(g),
        "estimate": lambda sketch, **_: sketch.product(sketch),
        "exact": lambda x, **_: x.double().T @ x.double(),
        "bound": lambda x, rows: math.sqrt(2 / (rows - 1)) * float(x.double().norm()) ** 2,
        "size": lambda sketch, rows, **_: (len(sketch.keys), rows),
        "scale": ("x",),
    },
    papers=(Paper("Daliri, Freire, Li, Musco", 2025, "Matrix Product Sketching via Coordinated Sampling",
                  "arXiv:2501.17836", "coord-sampling",
                  "rows sampled by squared norm with one hash of their keys, and the estimate of AᵀB"),),
)  # fmt: skip
def coordinated_sampling(
    x: Tensor, rows: int, *, keys: Tensor | None = None, rule: str = "priority", generator: Generator | None = None
) -> CoordinatedSketch:
    """A sketch of x of shape (n, d) by about ``rows`` of its rows, drawn with chances proportional to squared norms.

    Every key (n,), by default 0, …, n − 1, is uniform_hash with the seed to a uniform number u, which is all that two
    sketches share. "priority" keeps the ``rows`` rows of least u / ‖x_i‖² and takes the next as threshold: an exact
    size; "threshold" keeps those with u ≤ rows ‖x_i‖² / ‖x‖², so only its expectation is bounded (but
    chances are independent). Rows of zeros are never kept.

    Stored sparsely, the rows of a sparse matrix are short: for AᵀB with s non-zeros a row the error ε‖A‖‖B‖ costs
    O(s / ε²) numbers, where linear sketches need O(d / ε²). ``generator`` counts by its initial seed alone, not by
    its state: pass generators of one seed (or none) wherever sketches are to be multiplied. Cost: one pass.

    Raises ValueError for repeated keys, fewer than one row, unknown rules, NaN and infinities.

    >>> a, b = torch.eye(100)[:, :3], torch.ones(100, 1)
    >>> coordinated_sampling(a, 3).product(coordinated_sampling(b, 100)).flatten()
    tensor([1., 1., 1.])
    """
    _check.finite("x", _check.floating("x", x))
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"x of shape {tuple(x.shape)} must be a matrix with rows and columns")
    _check.at_least("rows", rows, 1)
    keys = _keys(keys, x)
    seed = 0 if generator is None else generator.initial_seed()
    weight = (x / x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)).double().square().sum(1)
    present = weight.nonzero().squeeze(1)
    weight, uniform = weight[present], uniform_hash(keys[present], seed)
    if rule == "priority":
        order = (uniform / weight).argsort()
        level = (uniform / weight)[order[rows]] if rows < len(order) else torch.tensor(torch.inf)
        chosen = order[:rows]
    elif rule == "threshold":
        level = rows / weight.sum()
        chosen = (uniform <= level * weight).nonzero().squeeze(1)
    else:
        raise ValueError(f"rule={rule!r} is unknown; choose 'priority' or 'threshold'")
    chosen = chosen[keys[present][chosen].argsort()]
    chance = (level.to(weight) * weight[chosen]).clamp(max=1).to(x.dtype)
    return CoordinatedSketch(keys[present][chosen], x[present[chosen]], chance, seed)


def _keys(keys: Tensor | None, x: Tensor) -> Tensor:
    if keys is None:
        return torch.arange(len(x), device=x.device)
    if keys.shape != (len(x),) or keys.is_floating_point():
        raise ValueError(f"keys of shape {tuple(keys.shape)} and {keys.dtype} must be one integer a row, ({len(x)},)")
    if len(keys.unique()) < len(keys):
        raise ValueError("keys are repeated; add up the rows of one key, or number them")
    return keys.long()


def uniform_hash(keys: Tensor, seed: int) -> Tensor:
    """A number in (0, 1] for every integer key, float64, by two rounds of multiplying and folding 64 bits.

    >>> uniform_hash(torch.arange(10000), 0).mean().round(decimals=1)
    tensor(0.5000, dtype=torch.float64)
    """
    x = keys * -7046029254386353131 + (seed % (1 << 62)) * 2 + 1
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return (((x >> 11) & ((1 << 53) - 1)).double() + 1) * 2.0**-53


def _draw_rows(generator: Generator) -> dict[str, Any]:
    """A matrix with some long rows among short ones."""
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    x[::20] *= 10
    return {"x": x, "rows": 30}
