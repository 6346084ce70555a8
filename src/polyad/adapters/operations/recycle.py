"""The principal directions of other adapters put into an EigenLoRAx."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.adapters.host.adapters import Adapters
from polyad.adapters.methods.eigenlorax import EigenLoRAx
from polyad.adapters.operations.arithmetic import thin_factor, updates


def recycle(adapters: Adapters, name: str, sources: Sequence[str]) -> dict[str, float]:
    """Give the EigenLoRAx ``name`` the principal directions of other adapters, and return the energy they hold.

    On each layer, V_B and V_A are the first singular vectors of the sources' updates side by side, and one above the
    other. Each update counts by its square, whatever its method and however it is factored; the paper takes the
    directions of the matrices A and B, centred, which depend on how a product is split. The energy is the smaller
    share of the two sides. Directions that the sources do not span stay as they were, made orthogonal to the rest.
    """
    changes = [updates(adapters, source) for source in sources]
    energies: dict[str, float] = {}
    for path, adapter in adapters.of(name).items():
        on_path = [change[path] for change in changes if path in change]
        if not isinstance(adapter, EigenLoRAx) or not on_path or adapter.VB.ndim > 2:
            raise ValueError(
                f"{path} of {name!r} is no EigenLoRAx of a single matrix, or none of {list(sources)} changes it; "
                f"attach {name!r} as EigenLoRAx to layers that the sources change, experts left out"
            )
        left, one = _principal(torch.cat([thin_factor(update) for update in on_path], 1), adapter.VB)
        right, other = _principal(
            torch.cat([thin_factor(update, right=True) for update in on_path], 1), adapter.VA.mT
        )
        adapter.VB.copy_(left)
        adapter.VA.copy_(right.mT)
        energies[path] = min(one, other)
    return energies


def _principal(x: Tensor, spare: Tensor) -> tuple[Tensor, float]:
    """The first left singular vectors of x, filled up with spare directions, and their share of the squares."""
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    count = min(spare.shape[1], int((s > s[0] * 1e-6).sum()))
    whole = torch.linalg.qr(torch.cat((u[:, :count], spare.to(u.dtype)), 1))[0][:, : spare.shape[1]]
    energy = float(s[:count].square().sum() / s.square().sum()) if float(s[0]) else 0.0
    return whole, energy
