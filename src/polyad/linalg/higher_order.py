"""Tucker decompositions by singular vectors: cores and factors, mode after mode."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.linalg.modes import mode_product, unfold
from polyad.linalg.svd import leading_left, truncated_svd

_GRAM = 1e-12  # squared tolerances below this are beyond what a float64 Gram matrix resolves
_MOST = 0.95  # of what may be lost, the share that one mode may take


def higher_order_svd(
    x: Tensor,
    rank: tuple[int, ...] | None,
    tol: float | None,
    *,
    batch: int = 0,
    modes: list[int] | None = None,
    sequential: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """Core (*batch, r₁, …, r_N) and orthonormal factors (*batch, I_n, r_n) of x (*batch, I₁, …, I_N).

    The modes are cut in this order, by default the one shrunk most first, to ``rank`` or so that the relative
    Frobenius error of every tensor is at most ``tol``. With ``sequential`` each from what the others have left, else
    from x. Arguments are the caller's to check, x near unit size.

    >>> core, factors = higher_order_svd(torch.ones(2, 3, 4), None, 0.1)
    >>> core.shape, round(abs(float(core)), 4)
    (torch.Size([1, 1, 1]), 4.899)
    """
    modes = truncation_order(rank, tuple(x.shape[batch:])) if modes is None else modes
    factors: list[Tensor] = [x] * len(modes)
    core, allowed = x, x if tol is None else squared_norms(x, batch) * tol**2
    for place, mode in enumerate(modes):
        unfolded = unfold(core if sequential else x, mode, batch)
        if rank is not None:
            factors[mode] = leading_left(unfolded, rank[mode])[0]
        else:
            factors[mode], lost = truncated_basis(unfolded, allowed, len(modes) - place, tol or 0.0)
            allowed = (allowed - lost).clamp(min=0)
        if sequential:
            core = mode_product(core, factors[mode].mH, mode, batch)
    if not sequential:
        for mode in modes:
            core = mode_product(core, factors[mode].mH, mode, batch)
    return core, factors


def truncation_order(rank: tuple[int, ...] | None, shape: tuple[int, ...]) -> list[int]:
    """The modes in the order in which to cut them: most shrunk first, else smallest first, then outer ones.

    Unfoldings of the first and the last mode are views.
    """
    ratio = [1.0] * len(shape) if rank is None else [r / n for r, n in zip(rank, shape, strict=True)]
    inner = [0 < mode < len(shape) - 1 for mode in range(len(shape))]
    return sorted(range(len(shape)), key=lambda mode: (ratio[mode], shape[mode], inner[mode]))


def squared_norms(x: Tensor, batch: int) -> Tensor:
    """The squared Frobenius norm of each tensor, (*batch,), in float64 and without gradient."""
    if x.is_complex():
        x = torch.view_as_real(x.detach().resolve_conj()).flatten(-2) if x.ndim > batch else x.detach().abs()
    flat = x.detach().flatten(batch) if x.ndim > batch else x.detach().unsqueeze(-1)
    return torch.linalg.vector_norm(flat, dim=-1, dtype=torch.float64).square()


def truncated_basis(unfolded: Tensor, allowed: Tensor, modes: int, tol: float) -> tuple[Tensor, Tensor]:
    """The left singular vectors to keep of one of ``modes`` remaining modes, and the error, of ``allowed`` (*batch).

    A mode may lose its even share of what is allowed, or nearly all of it where that more than halves its rank: at a
    floor of noise the first mode cut takes most of the noise with it, and little is left for the others to lose.
    All tensors of the batch get the number of vectors that the most demanding needs.
    """
    n, m = unfolded.shape[-2:]
    if tol**2 > _GRAM and n <= m:
        u, s = leading_left(unfolded, n, exact=True)
    else:
        u, s, _ = truncated_svd(unfolded, min(n, m), exact=True)
    left = s.detach().double().square().flip(-1).cumsum(-1).flip(-1)

    def least(share: float) -> int:
        return int((left > (allowed * share).unsqueeze(-1)).sum(-1).clamp(min=1).max())

    even, most = least(1 / modes), least(1 if modes == 1 else _MOST)
    r = most if 2 * most < even else even
    return u[..., :r].contiguous(), left[..., r] if r < left.shape[-1] else torch.zeros_like(allowed)
