"""Starts that the caller brings for Tucker decompositions, and the modes whose factors stay as they are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyad import _check
from polyad.decompose.alternating.own_start import check_init
from polyad.formats import Tucker
from polyad.linalg import mode_product


def check_start(
    x: Tensor, rank: tuple[int, ...] | int | None, batch: int, init: Tucker | None, fixed: Sequence[int]
) -> tuple[int, ...] | None:
    """Refuse starts that do not fit x or the ranks, and modes that cannot stay. Returns the ranks, None without any.

    A factor that stays may have any number of columns; that of a mode to renew has at most as many as rows.
    """
    shape = tuple(x.shape[batch:])
    check_init(x, batch, init, fixed, Tucker)
    if init is None:
        return _check.ranks(rank, shape)
    free = [mode for mode in range(len(shape)) if mode not in fixed]
    for mode in free:
        _check.rank(init.rank[mode], shape[mode], f"mode {mode} of shape {shape}", f"init.rank[{mode}]")
    asked = tuple(min(rank, n) for n in shape) if isinstance(rank, int) else rank
    if asked is not None and tuple(asked) != init.rank:
        raise ValueError(f"rank={rank} is not that of init, {init.rank}; give one of them, or the same")
    return init.rank


@dataclass(frozen=True)
class OrthonormalStart:
    """A Tucker tensor with orthonormal factors, and the factors that stay with what turns them back."""

    core: Tensor
    factors: list[Tensor]
    inverses: dict[int, tuple[Tensor, Tensor]]

    def restore(self, core: Tensor, factors: Sequence[Tensor], batch: int) -> tuple[Tensor, list[Tensor]]:
        """The core and factors of the same tensor in which factors that stay are those that were given."""
        factors = list(factors)
        for mode, (factor, inverse) in self.inverses.items():
            core, factors[mode] = mode_product(core, inverse, mode, batch), factor
        return core, factors


def orthonormal_start(
    init: Tucker, fixed: Sequence[int], scale: Tensor | None, dtype: torch.dtype
) -> OrthonormalStart:
    """``init``, divided by ``scale`` (*batch) if there is one, as orthonormal factors and the core of these.

    Columns that depend on others become zero, so that what is projected is the span of the factor.
    """
    batch = init.batch
    core = init.core.detach().to(dtype)
    if scale is not None:
        core = core / scale[(..., *[None] * len(init.factors))]
    factors: list[Tensor] = []
    inverses: dict[int, tuple[Tensor, Tensor]] = {}
    for mode, part in enumerate(init.factors):
        factor = part.detach().to(dtype)
        u, s, vh = torch.linalg.svd(factor, full_matrices=False)
        least = max(factor.shape[-2:]) * torch.finfo(dtype).eps * s[..., :1]
        present = s > least
        inverse = torch.where(present, 1 / torch.where(present, s, 1), 0)
        factors.append(u * present.unsqueeze(-2))
        core = mode_product(core, s.unsqueeze(-1) * vh, mode, batch)
        if mode in fixed:
            inverses[mode] = factor, vh.mH * inverse.unsqueeze(-2)
    return OrthonormalStart(core, factors, inverses)
