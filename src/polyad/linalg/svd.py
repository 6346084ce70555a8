"""Leading singular vectors of matrices, batched over leading dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check

_FLOOR = 1e-6  # singular values below this share of the largest are lost in a float64 Gram matrix


def truncated_svd(x: Tensor, rank: int | None = None, *, tol: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular triples of x of shape (*batch, n, m): U (*batch, n, r), S (*batch, r), Vh (*batch, r, m).

    Give either ``rank`` or ``tol``, the relative Frobenius error allowed to ``U S Vh``. A batch with ``tol`` takes
    the largest rank that one of its matrices needs; the others' surplus singular values are zero. Signs are fixed:
    the entry of greatest magnitude in each column of U is positive.

    bfloat16 and float16 are computed and returned in float32. float32 goes through the float64 Gram matrix of the
    shorter side k, with 2 k n m operations and an eigenvalue problem of size k, unless singular values are wanted
    that it cannot resolve; then, and for float64, through a full singular value decomposition.

    >>> u, s, vh = truncated_svd(torch.diag(torch.tensor([3.0, -2.0, 1.0])), rank=2)
    >>> s, ((u * s) @ vh).diagonal()
    (tensor([3., 2.]), tensor([ 3., -2.,  0.]))
    """
    x = _prepare(x, rank, tol)
    if x.shape[-2] > x.shape[-1]:
        v, s, uh = _wide(x.mT, rank, tol)
        u, vh = uh.mT, v.mT
    else:
        u, s, vh = _wide(x, rank, tol)
    sign = _signs(u)
    return (u * sign).contiguous(), s, (vh * sign.mT).contiguous()


def left_singular(x: Tensor, rank: int | None = None, *, tol: float | None = None) -> tuple[Tensor, Tensor]:
    """The leading left singular vectors and values of x of shape (*batch, n, m): U (*batch, n, r), S (*batch, r).

    As ``truncated_svd`` without the right vectors, always through the (n, n) Gram matrix in float64, and ``rank``
    may go up to n whatever m is: U has orthonormal columns even where singular values are zero. Values below about
    1e-8 of the largest are noise.

    >>> u, s = left_singular(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), rank=2)
    >>> u, s
    (tensor([[1., 0.],
            [0., 1.]]), tensor([5., 0.]))
    """
    x = _prepare(x, rank, tol, limit=x.shape[-2] if x.ndim > 1 else None)
    u, s = _gram(x)
    u, s = _cut(u, s, rank, tol)
    return (u * _signs(u)).to(x.dtype).contiguous(), s.to(x.dtype)


def needed_rank(s: Tensor, tol: float) -> Tensor:
    """Per matrix, the least rank with which dropping the rest of S (*batch, k) leaves a relative error of ``tol``.

    >>> needed_rank(torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]]), tol=0.1)
    tensor([2, 1])
    """
    squares = s.double().square()
    left = squares.flip(-1).cumsum(-1).flip(-1)  # what dropping entry k and all after it leaves
    allowed = tol**2 * left[..., :1]
    return (left > allowed).sum(-1).clamp(min=1)


def _prepare(x: Tensor, rank: int | None, tol: float | None, limit: int | None = None) -> Tensor:
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 2))
    _check.exactly_one(rank=rank, tol=tol)
    if rank is not None:
        shape = tuple(x.shape)
        _check.rank(rank, limit or min(shape[-2:]), f"what a matrix of shape {shape[-2:]} has")
    if tol is not None:
        _check.tolerance(tol)
    return x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()


def _wide(x: Tensor, rank: int | None, tol: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """The triples of matrices that are no taller than wide, with signs as they come."""
    if x.dtype == torch.float32:
        u, s = _cut(*_gram(x), rank, tol)
        if x.is_meta or bool((s[..., -1] > _FLOOR * s[..., 0]).all()):
            u, s = u.to(x.dtype), s.to(x.dtype)
            return u, s, (u.mT @ x) / s.unsqueeze(-1)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    u, s = _cut(u, s, rank, tol)
    return u, s, vh[..., : s.shape[-1], :]


def _gram(x: Tensor) -> tuple[Tensor, Tensor]:
    """All left singular vectors and values, largest first, in float64."""
    x = x.double()
    squares, u = torch.linalg.eigh(x @ x.mT)
    return u.flip(-1), squares.flip(-1).clamp(min=0).sqrt()


def _cut(u: Tensor, s: Tensor, rank: int | None, tol: float | None) -> tuple[Tensor, Tensor]:
    if tol is not None:
        needed = needed_rank(s, tol)
        rank = int(needed.max())
        s = s.masked_fill(torch.arange(s.shape[-1], device=s.device) >= needed.unsqueeze(-1), 0)
    return u[..., :rank], s[..., :rank]


def _signs(u: Tensor) -> Tensor:
    """±1 per column, shape (*batch, 1, r), so that its entry of greatest magnitude becomes positive."""
    largest = u.gather(-2, u.abs().argmax(-2, keepdim=True))
    return torch.where(largest < 0, -1, 1).to(u.dtype)
