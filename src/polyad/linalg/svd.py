"""Leading singular vectors of matrices, batched over leading dimensions."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.linalg._exact import complete_left, complete_triples, drowns, needed_rank, sharp_left, zero_beyond_rank
from polyad.linalg.krylov import krylov
from polyad.linalg.scaling import near_unit, single_or_double
from polyad.linalg.svd_gradient import connect_gradient

_LEAST = 512  # the shorter side from which on iterating can pay
_NOISE = 1e-7  # share of the largest singular value below which a Gram matrix gives no right vector


def truncated_svd(
    x: Tensor,
    rank: int | None = None,
    *,
    tol: float | None = None,
    exact: bool = False,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular triples of x of shape (*batch, n, m): U (*batch, n, r), S (*batch, r), Vh (*batch, r, m).

    Give either ``rank`` or ``tol``, the relative Frobenius error allowed to ``U S Vh``. A batch with ``tol`` takes
    the largest rank that one of its matrices needs; the others' surplus singular values are zero. Signs are fixed:
    the entry of greatest magnitude in each column of U is positive. bfloat16 and float16 are computed and returned
    in float32. Of complex x that entry is real, as S is. Any scale will do: what lies far from 1 is scaled by a
    power of two.

    Let k be the shorter side. A rank up to k / 10 of a matrix with k >= 512, or a tolerance that proves to need no
    more, is found by block Krylov iteration from a random start (``generator``; the same each time by default):
    some 4 to 6 r products with a vector and as many with the transpose. Its squared error is at most about 1e-4 of
    itself above the least, mostly below 1e-6, and within ``tol`` for certain: it is ``‖x‖² - ‖S‖²``, or where that
    cancels the residual itself. Where the iteration does not get there, and with ``exact=True``, all triples are
    found: float32 through the float64 Gram matrix of the shorter side, 2 k n m operations and an eigenvalue problem
    of size k, unless singular values are wanted that it cannot resolve; then, and for float64, by a full singular
    value decomposition.

    Gradients flow to x, once, and stay finite at repeated and zero singular values, where they are those of
    functions that do not depend on the choice of vectors (``svd_gradient.connected``).

    >>> u, s, vh = truncated_svd(torch.diag(torch.tensor([3.0, -2.0, 1.0])), rank=2)
    >>> s, ((u * s) @ vh).diagonal()
    (tensor([3., 2.]), tensor([ 3., -2.,  0.]))
    """
    x, scale = _prepare(x, rank, tol)
    if x.shape[-2] > x.shape[-1]:
        v, s, uh = _triples(x.mH, rank, tol, exact, generator)
        u, vh = uh.mH, v.mH
    else:
        u, s, vh = _triples(x, rank, tol, exact, generator)
    sign = _signs(u.detach())
    return (u * sign).contiguous(), s if scale is None else s * scale, (vh * sign.mH).contiguous()


def left_singular(
    x: Tensor,
    rank: int | None = None,
    *,
    tol: float | None = None,
    exact: bool = False,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The leading left singular vectors and values of x of shape (*batch, n, m): U (*batch, n, r), S (*batch, r).

    As ``truncated_svd`` without the right vectors, and ``rank`` may go up to n whatever m is: U has orthonormal
    columns even where singular values are zero. Small ranks of large n are found by block Krylov iteration, ranks up
    to m of matrices taller than wide as there; all else through the (n, n) Gram matrix in float64, in which values
    below about 1e-8 of the largest are noise. Where float64 asks for vectors of such values, or for a tolerance below
    1e-6, a full singular value decomposition follows, unless ``exact`` asks for all vectors. Ranks up to n / 3 of 32
    matrices and more are iterated for all of them together (``orthogonal_iteration``), unless ``exact`` or a gradient
    asks for all vectors: some 1e-9 of the squared error is left.

    >>> u, s = left_singular(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), rank=2)
    >>> u, s
    (tensor([[1., 0.],
            [0., 1.]]), tensor([5., 0.]))
    """
    x, scale = _prepare(x, rank, tol, limit=x.shape[-2] if x.ndim > 1 else None)
    u, s = leading_left(x, rank, tol, exact, generator)
    return u, s if scale is None else s * scale


def leading_left(
    x: Tensor,
    rank: int | None = None,
    tol: float | None = None,
    exact: bool = False,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """``left_singular`` of single or double precision near unit size, where arguments are the caller's to check.

    >>> leading_left(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 1)[1]
    tensor([5.])
    """
    n, m = x.shape[-2:]
    if n > m and (rank is None or rank <= m):
        _, s, uh = _triples(x.mH, rank, tol, exact, generator)
        u = uh.mH
    else:
        u, s = _left(x, rank, tol, exact, generator)
    return (u * _signs(u.detach())).contiguous(), s


def evenly(u: Tensor, s: Tensor, vh: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right factors of ``u diag(s) vh`` that carry a root of s each; its gradient at zero is zero.

    >>> evenly(torch.eye(2), torch.tensor([4.0, 0.0]), torch.eye(2))[0]
    tensor([[2., 0.],
            [0., 0.]])
    """
    present = s > 0
    root = torch.where(present, s, 1).sqrt() * present
    return u * root.unsqueeze(-2), root.unsqueeze(-1) * vh


def _prepare(
    x: Tensor, rank: int | None, tol: float | None, limit: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """The matrices in float32 or float64 near unit size, and the divisors that brought them there, or None."""
    _check.floating("x", x, complex_too=True)
    _check.dimensions("x", x, 2)
    _check.exactly_one(rank=rank, tol=tol)
    if rank is not None:
        shape = tuple(x.shape)
        _check.rank(rank, limit or min(shape[-2:]), f"what a matrix of shape {shape[-2:]} has")
    if tol is not None:
        _check.tolerance(tol)
    x, scale = near_unit(single_or_double(x), 2)
    return x, None if scale is None else scale.unsqueeze(-1)


def _triples(
    x: Tensor, rank: int | None, tol: float | None, exact: bool, generator: Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The triples of matrices that are no taller than wide, with signs as they come."""
    with torch.no_grad():
        few = None if exact else _few(x, rank, tol, generator)
        if few is not None:
            (*triples, needed), whole = few, (None, None)
        else:
            *whole, triples, needed = complete_triples(x, rank, tol)
    u, s, vh = connect_gradient(x, *triples, *whole)
    return u, zero_beyond_rank(s, needed if tol is not None else None), vh


def _left(
    x: Tensor, rank: int | None, tol: float | None, exact: bool, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """Left vectors and values of matrices, of wide ones as a rule."""
    with torch.no_grad():
        few = None if exact else _few(x, rank, tol, generator, _LEAST // 2)
        if few is not None:
            u, s, vh, needed = few
            whole = (None, None)
        else:
            u, s = complete_left(x, None if exact or x.requires_grad else rank)
            if not (exact and tol is None) and drowns(x, s, rank, tol):
                u, s = sharp_left(x)
            needed = None if tol is None else needed_rank(s, tol)
            r = rank if needed is None else int(needed.max())
            whole = (u.to(x.dtype), s.to(x.real.dtype))
            u, s, vh = whole[0][..., :r], whole[1][..., :r], None
        if vh is None and x.requires_grad:
            vh = (u.mH @ x) * torch.where(s > _NOISE * s[..., :1], s, torch.inf).reciprocal().unsqueeze(-1)
    if vh is not None:
        u, s, _ = connect_gradient(x, u, s, vh, *whole)
    return u, zero_beyond_rank(s, needed if tol is not None else None)


def _few(
    x: Tensor, rank: int | None, tol: float | None, generator: Generator | None, least: int = _LEAST
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """The leading triples by block Krylov iteration, or None where that does not pay."""
    short = min(x.shape[-2:])
    if x.is_meta or x.is_complex() or short < least or (rank is not None and rank * 10 > short):
        return None
    return krylov(x, rank, tol, short // (3 if x.dtype == torch.float64 else 4), generator)


def _signs(u: Tensor) -> Tensor:
    """±1 or a phase per column, shape (*batch, 1, r), so that its entry of greatest magnitude becomes positive."""
    if u.is_complex():
        top = u.gather(-2, u.abs().argmax(-2, keepdim=True)).conj()
        return top / top.abs()
    least, most = u.aminmax(dim=-2, keepdim=True)
    return torch.where(-least > most, -1, 1).to(u.dtype)
