"""Tensors brought near unit size, so that squares neither over- nor underflow."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check


def single_or_double(x: Tensor) -> Tensor:
    """x itself in single or double precision, real or complex; what has less in single precision.

    >>> single_or_double(torch.ones(2, dtype=torch.float16)).dtype
    torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def double(x: Tensor) -> Tensor:
    """x in double precision, complex numbers as such.

    >>> double(torch.ones(2, dtype=torch.complex64)).dtype
    torch.complex128
    """
    return x.to(torch.promote_types(x.dtype, torch.float64))


def near_unit(x: Tensor, dims: int) -> tuple[Tensor, Tensor | None]:
    """x and None, or x divided by powers of two and these, one for each tensor of the last ``dims`` dimensions.

    The divisors have shape (*batch,). Only what lies far from 1 is divided, so that most callers get x itself.
    Refuses NaN and infinities on the way, in the same pass over x.

    >>> near_unit(torch.tensor([3e-30, 1e-30]), 1)[0]
    tensor([0.9507, 0.3169])
    """
    if x.is_meta:
        return x, None
    plain, along = x.detach(), tuple(range(-dims, 0))
    if x.is_complex():
        plain, along = torch.view_as_real(plain.resolve_conj()), tuple(range(-dims - 1, 0))
    near, most = (1e100, 1000) if plain.dtype == torch.float64 else (1e15, 120)
    norm = torch.linalg.vector_norm(plain, dim=along)  # the quickest reduction; shows NaN and infinities too
    if bool(((norm < near) & (norm > 1 / near)).all()):
        return x, None
    size = torch.maximum(-plain.amin(along), plain.amax(along))
    _check.finite("x", size if bool(torch.isfinite(size).all()) else plain)
    far = (size > near) | (size < 1 / near) & (size > 0)
    if not bool(far.any()):
        return x, None
    exponent = torch.frexp(size).exponent.clamp(-most, most)
    scale = torch.where(far, torch.ldexp(torch.ones_like(size), exponent), 1)
    return x / scale[(..., *[None] * dims)], scale
