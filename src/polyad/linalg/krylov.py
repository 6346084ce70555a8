"""A few leading singular triples of large matrices by block Krylov iteration from a random start."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

_SLACK = 1e-4  # what a step may still take off the squared error, relative to it, when the iteration ends


class _Side:
    """The orthonormal basis of one side: (*batch, n, columns) in float64, and how it grows."""

    def __init__(self, size: Tensor, generator: Generator) -> None:
        self.basis: Tensor | None = None
        self._size, self._generator = size, generator  # norms of the matrices, (*batch)

    def extend(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Add the span of y. Returns the new columns Q and coefficients C with ``y = basis @ C``, basis grown."""
        y = y.double()
        rest, within = self._project(y)
        q, r = _cholesky_qr(rest)
        if q is None or r is None:
            q, r = self._householder(rest)
        self.basis = q if self.basis is None else torch.cat((self.basis, q), -1)
        return q, r if within is None else torch.cat((within, r), -2)

    def _project(self, y: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.basis is None:
            return y, None
        first = self.basis.mT @ y
        y = y - self.basis @ first
        second = self.basis.mT @ y  # once leaves what rounding put back
        return y - self.basis @ second, first + second

    def _householder(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Orthonormal columns by Householder QR, for blocks that lack rank: noise below rounding fills them up."""
        noise = torch.randn(y.shape[-2:], generator=self._generator, dtype=y.dtype).to(y.device)
        floor = (self._size * torch.finfo(y.dtype).eps / y.shape[-2] ** 0.5).clamp_min(1e-300)
        q, r = torch.linalg.qr(y + noise * floor[..., None, None])
        for _ in range(2):
            q, again = torch.linalg.qr(self._project(q)[0])
            r = again @ r
        return q, r


def _cholesky_qr(y: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Q and R of tall blocks by two Cholesky factorisations; None where y is too close to lacking rank."""
    factors: list[Tensor] = []
    for _ in range(2):
        lower, info = torch.linalg.cholesky_ex(y.mT @ y)
        diagonal = lower.diagonal(dim1=-2, dim2=-1)
        if bool(info.any()) or not bool((diagonal.amin(-1) > 1e-6 * diagonal.amax(-1)).all()):
            return None, None
        y = torch.linalg.solve_triangular(lower.mT, y, upper=True, left=False)
        factors.append(lower.mT)
    return y, factors[1] @ factors[0]


def krylov(
    x: Tensor, rank: int | None, tol: float | None, limit: int, generator: Generator | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Leading singular triples of x (*batch, n, m) and the ranks needed (*batch), or None if ``limit`` columns fail.

    Block Golub-Kahan bidiagonalisation with both bases orthonormal: a column costs one product with x and one with
    its transpose, and nothing else of x is needed. All of ``Uᵀ x`` is known, so that ``‖x‖² - ‖s‖²`` is the squared
    error of what is kept. The iteration ends when a step took less than 1e-4 of the squared error of
    ``rank`` triples off it (what is left to gain is about the square of that share); with ``tol``, when that error
    is below it and the triples it needs have settled so. Products are
    taken in x's dtype, everything else in float64.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    lead, (n, m) = x.shape[:-2], x.shape[-2:]
    width = 32 if rank is None else max(8, -(-(rank + 8) // 2))
    rule = _StoppingRule(torch.linalg.vector_norm(x, dim=(-2, -1), dtype=torch.float64).square(), rank, tol, x.dtype)
    left, right = _Side(rule.total.sqrt(), generator), _Side(rule.total.sqrt(), generator)
    start = torch.randn(m, width, generator=generator, dtype=torch.float64).to(x.device)
    v, _ = right.extend(start.expand(*lead, m, width))
    projected = start.new_zeros((*lead, 0, width))
    while projected.shape[-2] + width <= min(limit, n, m - width):
        u, _ = left.extend(x @ v.to(x.dtype))
        v, across = right.extend(x.mT @ u.to(x.dtype))
        projected = torch.cat((torch.nn.functional.pad(projected, (0, width)), across.mT), -2)
        needed = rule.settled_rank(torch.linalg.svdvals(projected))
        if rule.is_hopeless(limit):
            return None
        if needed is not None:
            u, s, vh = _triples(left, right, projected, int(needed.max()), x.dtype)
            triples = u, s * (rule.total > 0).unsqueeze(-1), vh  # zero matrices got the noise that fills them
            if rule.certain or _is_within(x, triples, needed, rule.total, tol or 0.0):
                return *triples, needed
    return None


class _StoppingRule:
    """The rule that ends the iteration, from the singular values of the projected matrix."""

    def __init__(self, total: Tensor, rank: int | None, tol: float | None, dtype: torch.dtype) -> None:
        self.total, self._rank, self._tol = total, rank, tol
        self._rounding = 32 * torch.finfo(dtype).eps
        self._floor = total * (self._rounding / 8) ** 2
        self.certain = tol is None or tol**2 > self._rounding
        """True where ``‖x‖² - ‖s‖²`` is precise enough to judge by; else the residual itself must be formed."""
        self._before = total.new_zeros((*total.shape, 1))
        self._least = 0

    def settled_rank(self, s: Tensor) -> Tensor | None:
        """Per matrix the rank to keep, once that has settled; None before. s has shape (*batch, columns)."""
        unseen = self.total - s.square().sum(-1)
        unseen = torch.where(unseen > self._rounding * self.total, unseen, 0)
        left = unseen[..., None] + s.square().flip(-1).cumsum(-1).flip(-1)  # what dropping entry k and after leaves
        left = torch.cat((left, unseen[..., None]), -1)
        before, self._before = torch.nn.functional.pad(self._before, (0, s.shape[-1] - self._before.shape[-1])), s
        if self._rank is not None:
            if s.shape[-1] <= self._rank:
                return None
            needed, allowed = torch.full_like(unseen, self._rank, dtype=torch.long), left[..., self._rank]
        else:
            allowed = (self._tol or 0.0) ** 2 * self.total
            middle = s.shape[-1] // 2  # values up to here are near the truth, and no later one is larger
            more = (left[..., middle] - allowed) / s[..., middle].square().clamp_min(1e-300)
            self._least = middle + int(more.max().clamp(max=1e9))
            if bool((unseen > allowed).any()):
                return None
            needed = (left > allowed[..., None]).sum(-1).clamp(min=1)
        mask = torch.arange(s.shape[-1], device=s.device) < needed[..., None]
        gain = ((s - before) * (s + before) * mask).sum(-1)
        return needed if bool((gain <= _SLACK * allowed + self._floor).all()) else None

    def is_hopeless(self, limit: int) -> bool:
        """True once the tolerance is known to need more columns than ``limit``."""
        return self._least > limit


def _triples(
    left: _Side, right: _Side, projected: Tensor, rank: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    assert left.basis is not None
    assert right.basis is not None
    p, s, qh = torch.linalg.svd(projected, full_matrices=False)
    u, vh = left.basis @ p[..., :rank], qh[..., :rank, :] @ right.basis.mT
    return u.to(dtype), s[..., :rank].to(dtype), vh.to(dtype)


def _is_within(x: Tensor, triples: tuple[Tensor, Tensor, Tensor], needed: Tensor, total: Tensor, tol: float) -> bool:
    """True if the residual of these triples, formed in float64 a few rows at a time, is within the tolerance."""
    u, s, vh = (part.double() for part in triples)
    s = s * (torch.arange(s.shape[-1], device=s.device) < needed[..., None])
    squares = torch.zeros_like(total)
    for rows, part in zip(x.split(512, -2), (u * s.unsqueeze(-2)).split(512, -2), strict=True):
        squares += (rows.double() - part @ vh).square().sum((-2, -1))
    return bool((squares <= tol**2 * total).all())
