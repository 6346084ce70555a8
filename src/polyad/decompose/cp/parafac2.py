"""PARAFAC2: matrices of different lengths with common columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.cp._slices import check_slices, fit_slices, shorten_slices
from polyad.formats import CP


@dataclass(frozen=True, eq=False)
class Parafac2:
    """``X_k ≈ projections[k] @ (weights · B · a_k) @ Cᵀ``, with a_k the rows of A, and B the same for all slices.

    ``projections[k]`` (J_k, R) has orthonormal columns (or rows, where J_k < R); ``factors`` are A (K, R), B (R, R)
    and C (I, R), their columns of length one, and ``weights`` (R,) hold the lengths, largest first. So the products
    ``slice_factor(k)ᵀ slice_factor(k)`` are the same for all k with J_k ≥ R, which is what makes the model unique.
    """

    projections: tuple[Tensor, ...]
    factors: tuple[Tensor, Tensor, Tensor]
    weights: Tensor

    @property
    def rank(self) -> int:
        return len(self.weights)

    def slice_factor(self, k: int) -> Tensor:
        """The factor of the rows of slice k, ``projections[k] @ B`` (J_k, R)."""
        return self.projections[k] @ self.factors[1]

    def to_dense(self, k: int) -> Tensor:
        """Slice k, (J_k, I)."""
        return self.slice_factor(k) * (self.weights * self.factors[0][k]) @ self.factors[2].mT

    def error(self, slices: Sequence[Tensor]) -> float:
        """The relative Frobenius error to these slices, all together, in float64."""
        if len(slices) != len(self.projections):
            raise ValueError(
                f"slices has {len(slices)} entries; {len(self.projections)} are needed, one a projection"
            )
        exact = [x.detach().double() for x in slices]
        top = max(float(x.abs().max()) for x in exact) or 1.0
        rest = [(self.to_dense(k).double() - x) / top for k, x in enumerate(exact)]
        total = sum(float((x / top).square().sum()) for x in exact)
        return (sum(float(x.square().sum()) for x in rest) / total) ** 0.5 if total else 0.0


@method(
    "solve",
    example={
        "arguments": lambda g: _draw_slices(g),
        "off": lambda fit, slices, **_: fit.error(slices) / 1e-3,
        "scale": ("slices",),
    },
    papers=(
        Paper(
            "Kiers, ten Berge, Bro",
            1999,
            "PARAFAC2—Part I. A direct fitting algorithm for the PARAFAC2 model",
            "doi:10.1002/(SICI)1099-128X(199905/06)13:3/4<275::AID-CEM543>3.0.CO;2-B",
        ),
    ),
)
def parafac2(
    slices: Sequence[Tensor],
    rank: int,
    *,
    starts: int = 4,
    max_iter: int = 1000,
    stop: float = 1e-8,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Parafac2:
    """Factors of matrices X_k (J_k, I) of different lengths: X_k ≈ P_k B diag(a_k) Cᵀ, P_k with orthonormal columns.

    ``slices`` holds the matrices, or is a tensor (K, J, I). Longer ones than wide are replaced by the triangular
    factor of their QR decomposition, which loses nothing. An iteration finds each P_k as the orthonormal matrix
    nearest to X_k C diag(a_k) Bᵀ, and then sweeps twice over the CP decomposition of the stacked P_kᵀ X_k (K, R, I)
    by least squares; A, B and C then move on along their last change where that lowers the error. It ends where an
    iteration lowers the squared error by no more than ``stop`` of itself, or after ``max_iter``. One start has in C
    the leading right singular vectors of all slices, ``starts`` - 1 others are random, and the best after 30
    iterations goes on.

    Factors have the dtype of the slices; all is computed in float64. An iteration costs about 2 R I Σ min(J_k, I)
    operations and K singular value decompositions of R columns. ``callback(iteration, max_iter, {"error": …})``
    follows the iterations with the relative Frobenius error. The result carries no gradient. Departs from the paper
    in several sweeps an iteration and in moving on.

    Raises ValueError for a rank above the number of columns I, slices of different numbers of columns or dtypes, NaN
    and infinities.

    >>> fit = parafac2(slices := _draw_slices(torch.Generator().manual_seed(0))["slices"], 2)
    >>> [tuple(p.shape) for p in fit.projections], fit.error(slices) < 1e-4
    ([(5, 2), (8, 2), (6, 2), (7, 2)], True)
    """
    _check.iterations(max_iter, stop, 1)
    _check.at_least("starts", starts, 1)
    matrices = check_slices(slices)
    dtype, columns = matrices[0].dtype, matrices[0].shape[1]
    _check.rank(rank, columns, f"the {columns} columns of the slices")
    short, bases, scale = shorten_slices([x.detach().double() for x in matrices])
    generator = generator or Generator().manual_seed(0)
    projections, rows = fit_slices(short, rank, starts, max_iter, stop, generator, callback)
    unit = CP(tuple([row.mT for row in rows])).normalize()
    assert unit.weights is not None
    order = unit.weights.argsort(descending=True, stable=True)
    # the sign of a column of A is that of its slices' factors: B and C have positive largest entries
    a, b, c = unit.permute(order).factors
    sign = torch.where(c.gather(0, c.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
    factors = (a * sign, b, c * sign)
    whole = [p if q is None else q @ p for q, p in zip(bases, projections, strict=True)]
    return Parafac2(
        tuple([p.to(dtype) for p in whole]),
        (factors[0].to(dtype), factors[1].to(dtype), factors[2].to(dtype)),
        (unit.weights[order] * scale).to(dtype),
    )


def _draw_slices(generator: Generator) -> dict[str, Any]:
    """Four slices of rank two with five columns."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    b, c, a = normal(2, 2), normal(5, 2), 1 + normal(4, 2).abs()
    slices = [torch.linalg.qr(normal(n, 2)).Q @ b * a[k] @ c.mT for k, n in enumerate((5, 8, 6, 7))]
    return {"slices": slices, "rank": 2, "starts": 6, "max_iter": 300}
