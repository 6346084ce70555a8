"""Jacobi's method and Gram-Schmidt as one algorithm: uniformly random pairs of columns are made orthogonal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.linalg.sketch import default_generator


class Pivoted(NamedTuple):
    """``q = x t`` with orthogonal columns; ``t`` is orthogonal ("jacobi") or unit triangular ("gram_schmidt")."""

    q: Tensor
    t: Tensor

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, S, Vh of x, largest first, where ``t`` is orthogonal. Columns of zeros give columns of zeros in U."""
        s, unit = _norms_and_unit_columns(self.q)
        s, order = s.sort(dim=-1, descending=True)
        u = unit.gather(-1, order.unsqueeze(-2).expand_as(unit))
        v = self.t.gather(-1, order.unsqueeze(-2).expand_as(self.t))
        return u, s, v.mT

    def qr(self) -> tuple[Tensor, Tensor]:
        """Q and R of x with a diagonal that is not negative, where ``t`` is triangular."""
        s, unit = _norms_and_unit_columns(self.q)
        eye = torch.eye(self.t.shape[-1], dtype=self.t.dtype, device=self.t.device).expand_as(self.t)
        inverse = torch.linalg.solve_triangular(self.t, eye, upper=True, unitriangular=True)
        return unit, s.unsqueeze(-1) * inverse


def _norms_and_unit_columns(q: Tensor) -> tuple[Tensor, Tensor]:
    """The norms of the columns and the columns over them, without squares that over- or underflow."""
    largest = q.abs().amax(-2, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)
    norms = torch.linalg.vector_norm(q / largest, dim=-2, keepdim=True)
    return (norms * largest).squeeze(-2), q / largest / torch.where(norms > 0, norms, 1)


def coupling(gram: Tensor) -> Tensor:
    """tr(B ∘ B⁻¹ − I) of positive definite B (*batch, m, m): 0 if and only if B is diagonal.

    Every step on a uniformly random pair shrinks it by 1 − 2 / (m (m − 1)) in expectation, whatever the rule.

    >>> coupling(torch.tensor([[1.0, 0.5], [0.5, 1.0]])).round(decimals=4)
    tensor(0.6667)
    """
    return (gram.diagonal(dim1=-2, dim2=-1) * torch.linalg.inv(gram).diagonal(dim1=-2, dim2=-1) - 1).sum(-1)


@method(
    "solve",
    example={
        "arguments": lambda g: {"x": torch.randn(12, 5, generator=g, dtype=torch.float64)},
        "off": lambda found, x: _deviation(found, x),
        "scale": ("x",),
    },
    papers=(
        Paper("Detherage, Shah", 2025, "A Unified Perspective on Orthogonalization and Diagonalization",
              "arXiv:2505.02023", "ortho-diag", "the uniformly random pivoting rule and its rate for every member"),
        Paper("Demmel, Veselić", 1992, "Jacobi's method is more accurate than QR", "doi:10.1137/0613074"),
    ),
)  # fmt: skip
def random_pivoting(
    x: Tensor, *, rule: str = "jacobi", stop: float | None = None, max_iter: int = 200,
    generator: Generator | None = None,
) -> Pivoted:  # fmt: skip
    """Orthogonal columns from x of shape (*batch, n, m), n ≥ m, by making random pairs of them orthogonal.

    "jacobi" rotates a pair: x = Q Tᵀ is a singular value decomposition (``svd()``), and of a Cholesky factor the
    eigendecomposition; small singular values of badly scaled columns keep their relative accuracy. "gram_schmidt"
    takes from the later column its part along the earlier: x = Q T⁻¹ is a QR decomposition (``qr()``), R its Cholesky
    factor of xᵀx. Both converge linearly at one rate; ``coupling`` is what shrinks.

    Departures: m / 2 disjoint pairs, a random matching, are treated together, since one pair at a time is slow; all
    matrices of a batch share them. Steps are one-sided, on pairs; two-sided ones follow through a Cholesky factor.
    A sweep is m − 1 matchings; sweeps end where no two columns have a cosine above ``stop`` (default 4 √n epsilon)
    or after ``max_iter`` of them. float32 and float64 are kept. Not differentiable. Cost: about 2 n m² times
    log(1 / stop) sweeps.

    Raises ValueError for wide matrices, unknown rules, NaN and infinities.

    >>> u, s, vh = random_pivoting(torch.tensor([[3.0, 0.0], [4.0, 5.0]])).svd()
    >>> s.square().round()
    tensor([45.,  5.])
    """
    _check.iterations(max_iter, stop)
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 2))
    n, m = x.shape[-2:]
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x has dtype {x.dtype}; float32 or float64 is needed: x.float()")
    if n < m:
        raise ValueError(f"x of shape {tuple(x.shape)} is wider than tall; give x.mT")
    if rule not in ("jacobi", "gram_schmidt"):
        raise ValueError(f"rule={rule!r} is unknown; choose 'jacobi' or 'gram_schmidt'")
    least = 4 * n**0.5 * torch.finfo(x.dtype).eps if stop is None else stop
    generator = default_generator(generator)
    scale = x.detach().abs().amax((-2, -1), keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    q = (x.detach() / scale).mT.contiguous()  # columns as rows, which are contiguous
    t = torch.eye(m, dtype=x.dtype, device=x.device).expand(*x.shape[:-2], m, m).contiguous()
    for _ in range(max_iter if m > 1 else 0):
        for _ in range(m - 1):
            order = torch.randperm(m, generator=generator)[: m // 2 * 2].reshape(2, -1).sort(0).values.to(x.device)
            pivot(q, t, order[0], order[1], rule)
        if _cosine(q) <= least:
            break
    return Pivoted(q.mT * scale, t.mT)


def pivot(q: Tensor, t: Tensor, i: Tensor, j: Tensor, rule: str) -> None:
    """Make the rows i of q (*batch, m, n) orthogonal to the rows j, in place, and do the same to t (*batch, m, m)."""
    a, b = q[..., i, :], q[..., j, :]
    alpha, beta, gamma = (a * a).sum(-1), (b * b).sum(-1), (a * b).sum(-1)
    if rule == "jacobi":
        zeta = (beta - alpha) / (2 * torch.where(gamma == 0, 1, gamma))
        tangent = torch.where(zeta < 0, -1, 1) / (zeta.abs() + torch.hypot(zeta, torch.ones_like(zeta)))
        tangent = torch.where(gamma == 0, 0, tangent)
        cosine = (1 + tangent.square()).rsqrt().unsqueeze(-1)
        sine = cosine * tangent.unsqueeze(-1)
        for rows in (q, t):
            first, second = rows[..., i, :], rows[..., j, :]
            rows[..., i, :], rows[..., j, :] = cosine * first - sine * second, sine * first + cosine * second
    else:
        share = torch.where(alpha > 0, gamma / torch.where(alpha > 0, alpha, 1), 0).unsqueeze(-1)
        for rows in (q, t):
            rows[..., j, :] -= share * rows[..., i, :]


def _cosine(q: Tensor) -> float:
    """The largest cosine between two rows; rows that are zero, or rounding, have none."""
    norms = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    q = torch.where(norms > torch.finfo(q.dtype).eps ** 2, q / norms.clamp_min(torch.finfo(q.dtype).tiny), 0)
    return float((q @ q.mT).tril(-1).abs().max())


def _deviation(found: Pivoted, x: Tensor) -> float:
    """The distance of columns and turn from orthogonal, and of the product from q, in thousands of roundings."""
    scale = x.double().abs().max()
    q, t, x = found.q.double() / scale, found.t.double(), x.double() / scale
    turn = (t.mT @ t - torch.eye(len(t), dtype=t.dtype)).norm()
    return (_cosine(q.mT) + float(turn) + float((x @ t - q).norm() / x.norm())) / (
        1e3 * torch.finfo(found.q.dtype).eps
    )
