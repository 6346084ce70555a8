"""A truncated SVD that follows a sparse matrix as it grows and changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.algorithms.stream import Stream
from polyad.linalg.svd import truncated_svd

_NULL = 1e-12  # squared share of an update below which its part outside the singular vectors is rounding
_FOLD = 1e6  # condition number of the small factor above which the product is formed


@dataclass
class _Side:
    """Singular vectors kept as ``base @ small``, (n, k) and (k, k), so that updates touch few rows of the base."""

    buffer: Tensor  # the base and spare rows of zeros, so that growing seldom copies
    small: Tensor
    count: int

    @property
    def base(self) -> Tensor:
        return self.buffer[: self.count]

    def grow(self, rows: int) -> None:
        self.count += rows
        if self.count > len(self.buffer):
            spare = self.buffer.new_zeros(self.count - len(self.buffer) + self.count // 2, self.buffer.shape[1])
            self.buffer = torch.cat((self.buffer, spare))

    def vectors(self) -> Tensor:
        return self.base @ self.small

    def augment(self, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C = UᵀE, and R and T with (I − UUᵀ)E = Q R, Q = (I − UUᵀ)E T of orthonormal columns that is never formed.

        E is a coalesced sparse (n, s); only its non-zeros and an s x s Gram matrix are computed with.
        """
        (rows, columns), values = e.indices(), e.values()
        touched = self.base[rows] * values.unsqueeze(1)
        c = self.small.T @ touched.new_zeros(e.shape[1], touched.shape[1]).index_add_(0, columns, touched).T
        present, place = rows.unique(return_inverse=True)
        dense = values.new_zeros(len(present), e.shape[1]).index_put_((place, columns), values)
        gram = dense.T @ dense
        squares, p = torch.linalg.eigh(gram - c.T @ c)
        present = squares > _NULL * gram.diagonal().max().clamp_min(torch.finfo(gram.dtype).tiny)
        root, p = squares[present].sqrt(), p[:, present]
        return c, root.unsqueeze(1) * p.T, p / root

    def turn(self, e: Tensor, c: Tensor, t: Tensor, f: Tensor) -> None:
        """[U, Q] f as a new base and small factor."""
        k = c.shape[0]
        b = t @ f[k:]
        w = self.small @ (f[:k] - c @ b)
        if float(torch.linalg.cond(w)) < _FOLD:
            b = torch.linalg.solve(w, b, left=False)
        else:
            self.buffer, w = self.buffer @ w, torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
        (rows, columns), values = e.indices(), e.values()
        self.buffer.index_add_(0, rows, b[columns] * values.unsqueeze(1))
        self.small = w


@method(
    "stream",
    name="updating_svd",
    example={
        "arguments": lambda g: _draw_matrix(g),
        "feed": lambda svd, rows: svd.append_rows(rows),
        "read": lambda svd: (svd.u * svd.s) @ svd.v.T,
        "off": lambda product, x, rank, rows: _loss(product, torch.cat((x, rows))),  # noqa: ARG005
        "scale": (("x", "rows"),),
    },
    papers=(
        Paper("Deng, Yang, Li, Chen, Jiang, Pu", 2024,
              "Fast Updating Truncated SVD for Representation Learning with Sparse Matrices", "arXiv:2401.09703",
              "fast-update-tsvd", "the implicit orthonormal augmentation and the extended decomposition"),
        Paper("Zha, Simon", 1999, "On Updating Problems in Latent Semantic Indexing",
              "doi:10.1137/S1064827597329266"),
    ),
)  # fmt: skip
class UpdatingSVD(Stream):
    """The leading ``rank`` singular triples of a matrix (n, m), updated as rows, columns or low-rank changes come.

    Every update is a Rayleigh-Ritz projection onto the old singular vectors and the update's own directions: the best
    that can be done from the old triples alone, equal to Zha and Simon's, and exact while the matrix has at most this
    rank. Updates are sparse (or dense) tensors; with z non-zeros and s columns one costs O(k z + k² s + (k + s)³),
    whatever n and m are. Only asking for ``u`` or ``v`` costs O(n k²).

    The first decomposition, of x, is a dense one: start from few rows where x is large. Computed in float64, returned
    in the dtype of x. Not differentiable. Raises ValueError for updates of other
    sizes, ranks beyond the matrix, NaN and infinities.

    >>> a = torch.arange(24.0).reshape(6, 4).remainder(5)
    >>> svd = UpdatingSVD(a[:4], rank=4)
    >>> svd.append_rows(a[4:])
    >>> torch.allclose((svd.u * svd.s) @ svd.v.T, a, atol=1e-5)
    True
    """

    def __init__(self, x: Tensor, rank: int) -> None:
        _check.floating("x", x, sparse=True)
        dense = (x.to_dense() if x.layout != torch.strided else x).detach()
        if dense.ndim != 2:
            raise ValueError(f"x of shape {tuple(dense.shape)} must be a matrix; stack or flatten other modes first")
        u, s, vh = truncated_svd(dense.double(), rank)
        eye = torch.eye(rank, dtype=u.dtype, device=u.device)
        self.rank, self.dtype, self._s = rank, x.dtype, s
        self._left, self._right = _Side(u, eye, len(u)), _Side(vh.T.contiguous(), eye, vh.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        return (self._left.count, self._right.count)

    @property
    def s(self) -> Tensor:
        """Singular values, largest first."""
        return self._s.to(self.dtype)

    @property
    def u(self) -> Tensor:
        """Left singular vectors (n, rank); multiplied out when asked for."""
        return self._left.vectors().to(self.dtype)

    @property
    def v(self) -> Tensor:
        """Right singular vectors (m, rank)."""
        return self._right.vectors().to(self.dtype)

    def append_rows(self, e: Tensor) -> None:
        """Go from A to A with the rows e (s, m) below it."""
        e = self._sparse("e", e, (None, self.shape[1]))
        start, count = self.shape[0], e.shape[0]
        self._left.grow(count)
        self._update(_identity(start, count, e), e.T.coalesce())

    def append_columns(self, e: Tensor) -> None:
        """Go from A to A with the columns e (n, s) to its right."""
        e = self._sparse("e", e, (self.shape[0], None))
        start, count = self.shape[1], e.shape[1]
        self._right.grow(count)
        self._update(e, _identity(start, count, e))

    def add(self, d: Tensor, e: Tensor) -> None:
        """Go from A to A + d eᵀ with d (n, s) and e (m, s)."""
        d, e = self._sparse("d", d, (self.shape[0], None)), self._sparse("e", e, (self.shape[1], None))
        if d.shape[1] != e.shape[1]:
            raise ValueError(f"d has {d.shape[1]} columns and e {e.shape[1]}; d eᵀ needs as many of both")
        self._update(d, e)

    def _update(self, d: Tensor, e: Tensor) -> None:
        (c, r, t), (c2, r2, t2) = self._left.augment(d), self._right.augment(e)
        core = torch.cat((c, r)) @ torch.cat((c2, r2)).T
        core[: self.rank, : self.rank] += self._s.diag()
        f, s, gh = torch.linalg.svd(core, full_matrices=False)
        self._s = s[: self.rank]
        self._left.turn(d, c, t, f[:, : self.rank])
        self._right.turn(e, c2, t2, gh[: self.rank].T)

    def _sparse(self, name: str, x: Tensor, shape: tuple[int | None, int | None]) -> Tensor:
        wanted = tuple("s" if n is None else n for n in shape)
        if x.ndim != 2 or any(n is not None and n != size for n, size in zip(shape, x.shape, strict=True)):
            raise ValueError(
                f"{name} of shape {tuple(x.shape)} must have shape {wanted} to change one of {self.shape}"
            )
        if 0 in x.shape:
            raise ValueError(f"{name} of shape {tuple(x.shape)} is empty; leave the update out")
        x = _check.floating(name, x, sparse=True).detach().double().to_sparse_coo().coalesce()
        _check.finite(name, x.values())
        return x


def _identity(start: int, count: int, like: Tensor) -> Tensor:
    """The columns start, …, start + count − 1 of an identity of start + count rows, sparse."""
    index = torch.arange(count, device=like.device)
    ones = torch.ones(count, dtype=like.dtype, device=like.device)
    return torch.sparse_coo_tensor(
        torch.stack((index + start, index)), ones, (start + count, count), check_invariants=False
    ).coalesce()


def _draw_matrix(generator: Generator) -> dict[str, Any]:
    """The first rows of a matrix of rank four, and the others."""
    left, right = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((40, 4), (4, 12)))
    return {"x": (left @ right)[:8], "rank": 4, "rows": (left @ right)[8:]}


def _loss(product: Tensor, x: Tensor) -> float:
    """The loss of a matrix of the stream's rank, in hundred thousands of roundings."""
    scale = x.abs().max()
    return float((product / scale - x / scale).norm() / (x / scale).norm()) / (1e5 * torch.finfo(x.dtype).eps)
