"""All left singular vectors and values of matrices, and the leading triples among them."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.linalg.orthogonal_iteration import orthogonal_iteration
from polyad.linalg.scaling import double

_MANY = 32  # matrices from which on it pays to iterate for all together
_FLOOR = 1e-6  # singular values below this share of the largest are lost in a float64 Gram matrix
_SKEW = 1e-4  # below this share right vectors by way of the Gram matrix are orthogonal to less than single precision

Triple = tuple[Tensor, Tensor, Tensor]


def complete_left(x: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """All left singular vectors (*batch, n, n) and values (*batch, n) by way of ``x xᴴ``; both in float64.

    Where ``rank`` is given, it and many matrices make it quicker, only the leading ones, nearly.
    """
    x = double(x)
    gram = x @ x.mH
    if not x.is_complex() and rank is not None and 3 * rank <= x.shape[-2] and gram[..., 0, 0].numel() >= _MANY:
        vectors = orthogonal_iteration(gram, rank)
        if vectors is not None:
            return vectors[0], vectors[1].clamp(min=0).sqrt()
    squares, u = torch.linalg.eigh(gram)
    return u.flip(-1), squares.flip(-1).clamp(min=0).sqrt()


def sharp_left(x: Tensor) -> tuple[Tensor, Tensor]:
    """``complete_left`` by way of x itself, for what drowns in ``x xᴴ``; some times slower."""
    n, m = x.shape[-2:]
    u, s, _ = torch.linalg.svd(x, full_matrices=n > m)
    return u, torch.nn.functional.pad(s, (0, n - s.shape[-1]))


def drowns(x: Tensor, s: Tensor, rank: int | None, tol: float | None) -> bool:
    """True where the Gram matrix, whose values are s, cannot tell the vectors to keep from those to drop.

    In single precision it always can: it is formed in double.
    """
    if x.dtype not in (torch.float64, torch.complex128) or x.is_meta:
        return False
    if rank is None:
        return tol is not None and tol < _FLOOR
    last = min(rank, *x.shape[-2:]) - 1
    return rank < x.shape[-2] and bool((s[..., last] < _FLOOR * s[..., 0]).any())


def complete_triples(x: Tensor, rank: int | None, tol: float | None) -> tuple[Tensor, Tensor, Triple, Tensor | None]:
    """Of matrices no taller than wide: all left vectors and values, the triples of ``rank`` or ``tol``, the ranks."""
    if x.dtype in (torch.float32, torch.complex64):
        wide = double(x)
        u, s = complete_left(wide)
        needed, r = _ranks_needed(s, rank, tol)
        values = zero_beyond_rank(s[..., :r], needed)
        if x.is_meta or bool((values[..., -1] > _FLOOR * values[..., 0]).all()):
            right = _right_vectors(wide, u[..., :r], s[..., :r]).to(x.dtype)
            u, s = u.to(x.dtype), s.to(x.real.dtype)
            return u, s, (u[..., :r], s[..., :r], right), needed
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    needed, r = _ranks_needed(s, rank, tol)
    return u, s, (u[..., :r], s[..., :r], vh[..., :r, :]), needed


def _right_vectors(x: Tensor, u: Tensor, s: Tensor) -> Tensor:
    """Vh (*batch, r, m) of x from its left vectors and values, all in float64; orthonormal.

    In single precision the rounding of u, divided by small values, would skew them.
    """
    right = (u.mH @ x) / s.unsqueeze(-1)
    if x.is_meta or bool((s[..., -1] > _SKEW * s[..., 0]).all()):
        return right
    q, r = torch.linalg.qr(right.mH)  # r is the identity but for rounding
    return (q * torch.where(r.diagonal(dim1=-2, dim2=-1).real < 0, -1, 1).unsqueeze(-2)).mH


def needed_rank(s: Tensor, tol: float) -> Tensor:
    """Per matrix, the least rank with which dropping the rest of S (*batch, k) leaves a relative error of ``tol``.

    >>> needed_rank(torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]]), tol=0.1)
    tensor([2, 1])
    """
    squares = s.double().square()
    left = squares.flip(-1).cumsum(-1).flip(-1)  # what dropping entry k and all after it leaves
    allowed = tol**2 * left[..., :1]
    return (left > allowed).sum(-1).clamp(min=1)


def _ranks_needed(s: Tensor, rank: int | None, tol: float | None) -> tuple[Tensor | None, int]:
    if tol is None:
        assert rank is not None
        return None, rank
    needed = needed_rank(s, tol)
    return needed, int(needed.max())


def zero_beyond_rank(s: Tensor, needed: Tensor | None) -> Tensor:
    """Set the values of S beyond each matrix's rank to zero."""
    if needed is None:
        return s
    return s.masked_fill(torch.arange(s.shape[-1], device=s.device) >= needed.unsqueeze(-1), 0)
