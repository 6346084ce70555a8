"""Tensors of tubes in the Fourier domain, where the t-product is a product of matrices at each frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad.formats.structured.subspace import krylov_basis, leading, singular_basis
from polyad.linalg import near_unit


def to_frequencies(x: Tensor) -> Tensor:
    """(*batch, p, q, l) to complex (*batch, frequencies, p, q), the l // 2 + 1 that real tubes of length l need.

    Half precision is computed in float32.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.fft.rfft(x).movedim(-1, -3).contiguous()


def from_frequencies(x: Tensor, length: int) -> Tensor:
    """The inverse of ``to_frequencies``."""
    return torch.fft.irfft(x.movedim(-3, -1), n=length)


def weights(length: int, device: torch.device) -> Tensor:
    """The weights of the frequencies' squared norms in that of the tensor (Parseval), float64."""
    share = torch.full((length // 2 + 1,), 2 / length, dtype=torch.float64, device=device)
    share[_real(length)] = 1 / length
    return share


def truncate(x: Tensor, length: int, rank: int | None, tol: float | None) -> tuple[Tensor, Tensor]:
    """The best approximation of one rank at all frequencies of x: (*batch, frequencies, p, r) and (…, r, q).

    The shorter side's factor has orthonormal columns or rows. A batch with ``tol`` takes the largest rank needed.
    """
    _check.exactly_one(rank=rank, tol=tol)
    if x.shape[-2] > x.shape[-1]:
        right, left = truncate(x.mT, length, rank, tol)
        return left.mT, right.mT
    x, scale = _near_unit(x)
    basis = _leading_bases(x, length, rank, tol)
    rest = basis.mH @ x
    return basis, rest if scale is None else rest * scale[..., None, None, None]


def _near_unit(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Complex tensors (*batch, frequencies, p, q) near unit size, and what they were divided by."""
    unit, scale = near_unit(torch.view_as_real(x), 4)
    return (x if scale is None else torch.view_as_complex(unit)), scale


def _leading_bases(x: Tensor, length: int, rank: int | None, tol: float | None) -> Tensor:
    """The leading left singular vectors at all frequencies of x, as many as ``rank`` or ``tol`` ask for."""
    if rank is not None:
        _check.rank(rank, x.shape[-2], f"the shorter of the first two sides, {x.shape[-2]}")
        basis = None if x.requires_grad else _krylov_bases(x, length, rank)
        if basis is not None:
            return basis
    u, s = singular_basis(x)
    real = _real(length)  # a basis of a real matrix must be real, or the inverse transform would drop a part of it
    u[..., real, :, :] = singular_basis(x[..., real, :, :].real)[0].to(u.dtype)
    if tol is not None:
        rank = _needed_rank(s, length, _check.tolerance(tol))
    assert rank is not None
    return leading(x, u, s, rank)


def _krylov_bases(x: Tensor, length: int, rank: int) -> Tensor | None:
    """A basis by iteration, where the rank is small enough for that to pay and it comes near enough."""
    if 6 * (rank + 8) > x.shape[-2]:
        return None
    basis = krylov_basis(x, rank)
    real = None if basis is None else krylov_basis(x[..., _real(length), :, :].real, rank)
    if basis is None or real is None:
        return None
    basis[..., _real(length), :, :] = real.to(basis.dtype)
    return basis


def _needed_rank(s: Tensor, length: int, tol: float) -> int:
    """The least rank that keeps every tensor of the batch within tol, with room for the rounding of the factors."""
    squares = (s.double().square() * weights(length, s.device).unsqueeze(-1)).sum(-2)  # (*batch, n)
    tails = squares.flip(-1).cumsum(-1).flip(-1)
    allowed = max(0.0, tol**2 - (16 * torch.finfo(s.dtype).eps) ** 2)
    return max(1, int((tails > allowed * tails[..., :1]).sum(-1).max()))


def _real(length: int) -> list[int]:
    """The frequencies at which the transform of a real tube is real."""
    return sorted({0, length // 2} if length % 2 == 0 else {0})
