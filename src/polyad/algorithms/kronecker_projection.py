"""Projections onto the rows of A(W ⊗ I) or A(W^½ ⊗ W^½), kept up to date while W changes by low rank."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.algorithms.stream import Stream
from polyad.linalg.sketch import default_generator


@method(
    "stream",
    name="kronecker_projection",
    example={
        "arguments": lambda g: _draw_changes(g),
        "feed": lambda projection, rows: projection.update(rows.T if rows.ndim == 2 else rows),
        "read": lambda projection: projection.query(torch.eye(9, dtype=torch.float64)),
        "off": lambda found, a, w, rows: _deviation(found, a.double(), w.double() + rows.double().T @ rows.double()),
        "scale": ("a",),
    },
    papers=(
        Paper("Song, Yang, Yang, Zhang", 2023,
              "Sketching Meets Differential Privacy: Fast Algorithm for Dynamic Kronecker Projection Maintenance",
              "arXiv:2210.11542", "dyn-kron-projection",
              "Woodbury updates under low-rank changes of W, put off while they are small; private medians"),
    ),
)  # fmt: skip
class KroneckerProjection(Stream):
    """P h = Bᵀ(BBᵀ)⁻¹B h for B = A(W ⊗ I), or A(W^½ ⊗ W^½) with ``sides=2``, while W changes.

    A has shape (m, n²), its rows matrices (n, n) row by row and linearly independent; W (n, n) is positive definite.
    A change of W of rank r changes BBᵀ by rank 2 r n, whose inverse Woodbury's formula updates in O(m² r n + (r n)³)
    operations, where computing it anew takes O(m² n² + m³): for m near n², as in semidefinite programmes, a factor
    of about n / r less.

    With ``tol`` above 0, changes are put off: eigenvalues of W̃^{-½} W W̃^{-½} within 1 ± tol of 1 leave W̃, which
    queries use, as it is, and only directions beyond are brought up to date, so that W̃ stays within 1 ± tol of W.
    Answers are then those of W̃. Rounding gathers over updates: ``refresh`` starts anew.

    Departures: queries are exact for W̃ (O(m n² + n³)); the paper's sketched answers come from sketches of the query
    with ``private_median`` over them. Computed in float64. Not differentiable.

    Raises ValueError for sizes that do not match, W that is not positive definite, dependent rows, NaN, infinities.

    >>> a = torch.eye(4)[:2]
    >>> KroneckerProjection(a, torch.eye(2)).query(torch.arange(4.0))
    tensor([0., 1., 0., 0.], dtype=torch.float64)
    """

    def __init__(self, a: Tensor, w: Tensor, *, sides: int = 1, tol: float = 0.0) -> None:
        for name, x in (("a", a), ("w", w)):
            _check.finite(name, _check.dimensions(name, _check.floating(name, x), 2))
        if sides not in (1, 2):
            raise ValueError(f"sides={sides} must be 1, for A(W ⊗ I), or 2, for A(W^½ ⊗ W^½)")
        n = w.shape[0]
        if w.shape != (n, n) or a.ndim != 2 or a.shape[1] != n * n or a.shape[0] > n * n:
            raise ValueError(f"a of shape {tuple(a.shape)} must be (m, n²), m ≤ n², and w {tuple(w.shape)} (n, n)")
        self.sides, self.tol = sides, _check.tolerance(tol)
        self._a = a.detach().double().reshape(-1, n, n)
        self.w = _symmetric(w.detach().double())
        self.refresh()

    def refresh(self) -> None:
        """Compute everything anew from the current W, at O(m² n² + m³)."""
        _, self._root = _roots("w", self.w)
        self.used = self.w
        b = self._b().flatten(1)
        factor, wrong = torch.linalg.cholesky_ex(b @ b.T)
        pivots = factor.diagonal()
        if int(wrong) or float(pivots.min()) < 1e-7 * float(pivots.max()):
            raise ValueError(f"the {len(b)} rows of a are linearly dependent under w; leave dependent rows out")
        self._inverse = torch.cholesky_inverse(factor)

    def update(self, p: Tensor, s: Tensor | None = None) -> int:
        """W ← W + p s pᵀ with p (n, r) and symmetric s (r, r), by default I; the rank brought up to date."""
        n = len(self.w)
        if p.ndim != 2 or p.shape[0] != n or (s is not None and s.shape != (p.shape[1], p.shape[1])):
            raise ValueError(f"p of shape {tuple(p.shape)} must be ({n}, r), and s (r, r)")
        _check.finite("p", _check.floating("p", p))
        p = p.detach().double()
        core = (
            torch.eye(p.shape[1], dtype=p.dtype) if s is None else _symmetric(_check.finite("s", s).detach().double())
        )
        changed = self.w + p @ core @ p.T
        _roots("the changed w", changed)
        self.w = changed
        values, vectors = torch.linalg.eigh(torch.linalg.solve(self._root, self._relative()))
        beyond = (values - 1).abs() > max(self.tol, 1e-12)
        if not bool(beyond.any()):
            return 0
        self._apply(self._root @ vectors[:, beyond], values[beyond] - 1)
        return int(beyond.sum())

    def query(self, h: Tensor) -> Tensor:
        """P h for h (n²,) or (n², k)."""
        n = len(self.w)
        if h.ndim not in (1, 2) or h.shape[0] != n * n:
            raise ValueError(f"h of shape {tuple(h.shape)} must have {n * n} rows")
        b = self._b().flatten(1)
        return b.T @ (self._inverse @ (b @ _check.finite("h", h).detach().double()))

    def _relative(self) -> Tensor:
        """W̃^{-½} W, from which solving gives W̃^{-½} W W̃^{-½} up to its symmetry."""
        return torch.linalg.solve(self._root, self.w, left=False)

    def _b(self) -> Tensor:
        """The rows of B as matrices (m, n, n): for one side W A_i, for two W^½ A_i W^½."""
        return self.used @ self._a if self.sides == 1 else self._root @ self._a @ self._root

    def _apply(self, p: Tensor, d: Tensor) -> None:
        """Woodbury's formula for the change of BBᵀ that W̃ ← W̃ + p diag(d) pᵀ makes."""
        eye = torch.eye(len(self.w), dtype=p.dtype)
        new = _symmetric(self.used + (p * d) @ p.T)
        if self.sides == 1:  # W² changes by L K Lᵀ
            left = torch.cat((p, self.used @ p), 1)
            inner = (p.T @ p) * d.unsqueeze(1) * d
            k = torch.cat((torch.cat((inner, d.diag()), 1), torch.cat((d.diag(), torch.zeros_like(inner)), 1)))
            g = (left.T @ self._a).flatten(1)
            k = torch.kron(k, eye)
        else:  # W ⊗ W changes by Δ ⊗ W' + W ⊗ Δ
            g = torch.cat(((p.T @ self._a).flatten(1), (self._a @ p).mT.flatten(1)), 1)
            k = torch.block_diag(torch.kron(d.diag(), new), torch.kron(d.diag(), self.used))
        moved = self._inverse @ g
        core = torch.eye(len(k), dtype=k.dtype) + k @ (g.T @ moved)
        self._inverse = _symmetric(self._inverse - moved @ torch.linalg.solve(core, k @ moved.T))
        self.used = new
        _, self._root = _roots("the changed w", new)


def _symmetric(x: Tensor) -> Tensor:
    return (x + x.T) / 2


def _roots(name: str, w: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and the square root of a positive definite matrix."""
    values, vectors = torch.linalg.eigh(w)
    if float(values[0]) <= 1e-13 * abs(float(values[-1])):
        raise ValueError(f"{name} has the eigenvalue {float(values[0]):.3g}; it must be positive definite")
    return values, (vectors * values.sqrt()) @ vectors.T


def private_median(
    answers: Tensor, *, share: float = 0.5, noise: float = 0.0, generator: Generator | None = None
) -> Tensor:
    """A median over the first dimension of answers (L, …) that tells little of any one of them.

    Every call takes the median of a random ``share`` of the L answers and adds Laplace noise of scale ``noise``. Who
    chooses the next query by the answers to earlier ones learns so little of the L sketches behind them that about
    √T sketches withstand T queries, where a fresh one for each would take T.

    >>> private_median(torch.tensor([1.0, 2.0, 90.0]), share=1.0)
    tensor(2.)
    """
    _check.share("share", share)
    generator = default_generator(generator)
    taken = torch.randperm(len(answers), generator=generator)[: math.ceil(share * len(answers))]
    middle = answers[taken].median(0).values
    if noise == 0:
        return middle
    uniform = torch.rand(middle.shape, generator=generator, dtype=torch.float64).clamp(1e-12) - 0.5
    return middle - (noise * uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.5 - 1e-12))).to(middle)


def _draw_changes(generator: Generator) -> dict[str, Any]:
    """Four rows of A, and a positive definite W of three rows that grows by eight changes of rank one."""
    a, root, rows = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 9), (3, 3), (8, 3))
    )
    return {"a": a, "w": root @ root.T + torch.eye(3, dtype=torch.float64), "rows": rows / 2}


def _deviation(found: Tensor, a: Tensor, w: Tensor) -> float:
    """The distance of a projection from that computed anew for W ⊗ I, in millionths."""
    b = (a / a.abs().max()) @ torch.kron(w, torch.eye(len(w), dtype=w.dtype))
    exact = b.T @ torch.linalg.solve(b @ b.T, b)
    return float((found - exact).norm() / exact.norm()) / 1e-6
