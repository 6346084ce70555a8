"""The subspace power method for symmetric tensors."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose.alternating.mttkrp import khatri_rao
from polyad.decompose.cp._form import bring_near_unit
from polyad.formats import SymmetricCP

STARTS = 8  # power iterations that run side by side
FOUND = 1e-6  # how close to 1 an objective must be for the other starts to be given up


def _example(generator: Generator) -> Tensor:
    """A symmetric tensor of order 4 and rank 3."""
    return SymmetricCP.random((6, 6, 6, 6), generator=generator, dtype=torch.float64).to_dense().contiguous()


@method(
    "decompose",
    makes=SymmetricCP,
    example={"x": _example},
    papers=(
        Paper(
            "Kileel, Pereira",
            2019,
            "Subspace power method for symmetric tensor decomposition",
            "arXiv:1912.04007",
            handle="spm",
            adds="terms found one by one as rank-one points of the flattening's column space, then deflated",
        ),
    ),
)
def spm(
    x: Tensor,
    rank: int | None = None,
    *,
    threshold: float | None = None,
    stop: float = 1e-13,
    max_iter: int = 2000,
    generator: Generator | None = None,
) -> SymmetricCP:
    """The terms of a symmetric tensor of low rank, found one by one; how many there are need not be known.

    x has shape (d,) * m with m ≥ 3 and does not change when its modes are permuted; it is one tensor, without batch
    dimensions. Flattened to (dⁿ, dᵐ⁻ⁿ), n = ⌈m/2⌉, its rank is that of the decomposition, counted as singular
    values above ``threshold`` of the largest (by default the root of the dtype's epsilon) unless ``rank`` gives it.
    A power iteration, shifted so that its objective never falls, climbs to a unit vector whose n-th power lies in
    the column space: a term. Its weight is the one that lowers the flattening's rank, and the space loses a
    dimension. Eight starts run side by side; each iteration costs 32 R dⁿ operations, the flattening's singular
    value decomposition some dᵐ⁺ⁿ. An iteration ends when the best start moves by ``stop`` or less, or after
    ``max_iter`` steps; one that comes close to 1 goes on alone.

    The result is detached, has x's dtype and is computed in float64. All weights are fitted again at the end, by
    least squares, and descend in magnitude; those of odd orders are positive.

    Raises ValueError where x is not symmetric, and for ranks that the method cannot tell apart: above
    C(d + n - 1, n) - d, or the flattening's smaller side.

    >>> planted = SymmetricCP.random((5, 5, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> fit = spm(planted.to_dense())
    >>> fit.rank == planted.rank, bool((fit.weights - planted.weights).isfinite().all())
    (True, True)
    >>> bool((fit.to_dense() - planted.to_dense()).norm() < 1e-9 * planted.norm())
    True
    """
    _check.iterations(max_iter, stop)
    _check.floating("x", x)
    _check.dimensions("x", x, 3)
    work, norm, scale = bring_near_unit(x.detach().to(torch.promote_types(x.dtype, torch.float32))[None].contiguous())
    work = work[0].double() / norm
    eps = torch.finfo(x.dtype).eps
    _check_symmetric(work, 100 * eps)
    generator = generator if generator is not None else Generator().manual_seed(0)
    d, order = x.shape[0], x.ndim
    left, middle, right = _spaces(work, rank, threshold if threshold is not None else eps**0.5)
    vectors = []
    for _ in range(middle.shape[0]):
        a = climb(left, d, stop, max_iter, generator)
        vectors.append(a)
        left, middle, right = _deflate(left, middle, right, a, order)
    factor = torch.stack(vectors, 1) if vectors else work.new_ones(d, 1) / d**0.5
    return _fit_weights(work, factor, float(norm * scale), x.dtype)


def climb(
    space: Tensor, d: int, stop: float, max_iter: int, generator: Generator, trace: list[Tensor] | None = None
) -> Tensor:
    """The unit vector a whose n-th power lies closest to an orthonormal basis ``space`` (dⁿ, r), of shape (d,).

    Each of the starts ascends ``‖spaceᵀ a⊗ⁿ‖²``, until the best is close to 1 and goes on alone; ``trace`` collects
    the objectives (starts,) of every step.

    >>> e = torch.eye(3, dtype=torch.float64)
    >>> space = torch.kron(e[:, :1], e[:, :1])
    >>> climb(space, 3, 1e-13, 500, torch.Generator().manual_seed(0)).abs().round(decimals=6)
    tensor([1., 0., 0.], dtype=torch.float64)
    """
    n = round(math.log(space.shape[0]) / math.log(d)) if d > 1 else 1
    shift = math.sqrt((n - 1) / n)
    best = 0
    a = torch.randn(STARTS, d, generator=generator, dtype=torch.float64, device=generator.device).to(space.device)
    a = a / a.norm(dim=1, keepdim=True)
    for _ in range(max_iter):
        powers = _power(a, n - 1)  # (starts, dⁿ⁻¹)
        within = (a.unsqueeze(-1) * powers.unsqueeze(-2)).flatten(1) @ space
        value = within.square().sum(1)
        best = int(value.argmax())
        if trace is not None:
            trace.append(value)
        if len(a) > 1 and 1 - float(value[best]) <= FOUND:
            a, powers, within, best = a[best : best + 1], powers[best : best + 1], within[best : best + 1], 0
        gradient = ((within @ space.T).unflatten(1, (d, -1)) @ powers.unsqueeze(-1)).squeeze(-1)
        ascended = gradient + shift * a
        ascended = ascended / ascended.norm(dim=1, keepdim=True)
        a, step = ascended, float((ascended - a)[best].norm())
        if step <= stop:
            break
    return a[best]


def _power(a: Tensor, n: int) -> Tensor:
    """Kronecker powers of the rows of a (k, d): (k, dⁿ)."""
    return khatri_rao([a] * n) if n else a.new_ones(len(a), 1)


def _check_symmetric(x: Tensor, tol: float) -> None:
    if len(set(x.shape)) != 1:
        raise ValueError(f"x of shape {tuple(x.shape)} is not symmetric: all modes must have one size; use cp_als")
    off = max(float((x - x.transpose(mode, mode + 1)).norm()) for mode in range(x.ndim - 1))
    if off > tol:
        raise ValueError(
            f"x changes by {off:.2g} of its norm when two modes are swapped; average it over the permutations of its "
            "modes first, or use cp_als"
        )


def _spaces(x: Tensor, rank: int | None, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """The flattening as left @ middle @ rightᵀ with orthonormal sides and an invertible middle."""
    d, n = x.shape[0], (x.ndim + 1) // 2
    u, s, vh = torch.linalg.svd(x.reshape(d**n, -1), full_matrices=False)
    count = rank if rank is not None else int((s > threshold * s[0].clamp(min=1e-300)).sum())
    limit = max(1, min(math.comb(d + n - 1, n) - d, math.comb(d + x.ndim - n - 1, x.ndim - n)))
    most = f"the number of terms that can be told apart at size {d} and order {x.ndim}"
    _check.rank(max(count, 1) if rank is None else rank, limit, most)
    if rank is not None:
        count = min(rank, int((s > 1e-14 * s[0].clamp(min=1e-300)).sum()))
    return u[:, :count], torch.diag(s[:count]), vh[:count].T


def _deflate(left: Tensor, middle: Tensor, right: Tensor, a: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """Subtract the multiple of a's powers that lowers the rank by one."""
    n = (order + 1) // 2
    alpha, beta = _power(a[None], n)[0] @ left, _power(a[None], order - n)[0] @ right
    inverse = torch.linalg.pinv(middle, rtol=1e-14)  # lstsq differs in its last digit from call to call
    lost_right, lost_left = inverse @ alpha, beta @ inverse  # what the difference maps to 0, from either side
    weight = 1 / (beta @ lost_right)
    rest = middle - weight * torch.outer(alpha, beta)
    keep_left, keep_right = _complement(lost_left), _complement(lost_right)
    return left @ keep_left, keep_left.T @ rest @ keep_right, right @ keep_right


def _complement(v: Tensor) -> Tensor:
    """An orthonormal basis of the vectors orthogonal to v: (r, r - 1)."""
    return torch.linalg.qr(v.unsqueeze(1), mode="complete")[0][:, 1:]


def _fit_weights(x: Tensor, factor: Tensor, size: float, dtype: torch.dtype) -> SymmetricCP:
    """Fit the terms' weights by least squares, move signs of odd orders into the columns, and sort, largest first."""
    products = x.movedim(-1, 0).flatten(1).T @ factor  # (dᵐ⁻¹, R), then one mode fewer each time
    for _ in range(x.ndim - 1):
        products = (products.unflatten(0, (-1, len(factor))) * factor).sum(1)
    gram = (factor.T @ factor) ** x.ndim
    weights = torch.linalg.pinv(gram, rtol=1e-14, hermitian=True) @ products.reshape(-1)
    if x.ndim % 2:
        sign = torch.where(weights < 0, -1.0, 1.0)
    else:
        sign = torch.where(factor.gather(0, factor.abs().argmax(0, keepdim=True))[0] < 0, -1.0, 1.0)
    weights = weights * sign if x.ndim % 2 else weights
    order = weights.abs().argsort(descending=True, stable=True)
    return SymmetricCP((factor * sign)[:, order].to(dtype), (size * weights)[order].to(dtype), x.ndim)
