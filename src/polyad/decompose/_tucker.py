"""What the Tucker decompositions share: checks, energies and the cut of one mode by what it may lose."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad.linalg import left_singular, truncated_svd

_GRAM = 1e-12  # squared tolerances below this are beyond what a float64 Gram matrix resolves
_MOST = 0.95  # of what may be lost, the share that one mode may take


def check_rank(rank: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """One rank a mode, each from 1 to its size; None stays None."""
    if rank is None:
        return None
    if not isinstance(rank, tuple | list) or len(rank) != len(shape):
        raise ValueError(f"rank={rank} must give one number for each of the {len(shape)} modes of shape {shape}")
    for mode, (r, n) in enumerate(zip(rank, shape, strict=True)):
        _check.rank(r, n, f"mode {mode} of shape {shape}", f"rank[{mode}]")
    return tuple(rank)


def squares(x: Tensor, batch: int) -> Tensor:
    """The squared Frobenius norm of each tensor, (*batch,), in float64 and without gradient."""
    flat = x.detach().flatten(batch) if x.ndim > batch else x.detach().unsqueeze(-1)
    return torch.linalg.vector_norm(flat, dim=-1, dtype=torch.float64).square()


def kept(unfolded: Tensor, allowed: Tensor, modes: int, tol: float) -> tuple[Tensor, Tensor]:
    """The left singular vectors that one of ``modes`` remaining modes keeps, and what of ``allowed`` is lost (*batch).

    A mode may lose its even share of what is allowed, or nearly all of it where that more than halves its rank: at a
    floor of noise the first mode cut takes most of the noise with it, and little is left for the others to lose.
    All tensors of the batch get the number of vectors that the most demanding needs.
    """
    n, m = unfolded.shape[-2:]
    if tol**2 > _GRAM and n <= m:
        u, s = left_singular(unfolded, n, exact=True)
    else:
        u, s, _ = truncated_svd(unfolded, min(n, m), exact=True)
    left = s.detach().double().square().flip(-1).cumsum(-1).flip(-1)

    def least(share: float) -> int:
        return int((left > (allowed * share).unsqueeze(-1)).sum(-1).clamp(min=1).max())

    even, most = least(1 / modes), least(1 if modes == 1 else _MOST)
    r = most if 2 * most < even else even
    return u[..., :r].contiguous(), left[..., r] if r < left.shape[-1] else torch.zeros_like(allowed)
