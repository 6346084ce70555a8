"""LoRA in the principal directions of other adapters: only coefficients are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.operations.arithmetic import reduced, updates
from polyad.formats import LowRank


@method(
    "adapter",
    makes=None,
    name="eigenlorax",
    example={"rank": 2, "components": 3},
    papers=(
        Paper(
            "Kaushik, Vaidya, Chaudhari, Chellappa, Yuille",
            2025,
            "EigenLoRAx: Recycling Adapters to Find Principal Subspaces for Resource-Efficient Adaptation and "
            "Inference",
            "arXiv:2502.04700",
            handle="eigenlorax",
        ),
    ),
)
class EigenLoRAx(Adapter):
    """``ΔW = (V_B C_B) (C_A V_A)`` with frozen orthonormal V_B (out, K), V_A (K, in), and K = ``components``.

    Trained are C_A (rank, K), normal of variance 1 / K, and C_B (K, rank), zero: 2 rank K numbers. V_A and V_B are
    random until ``recycle`` takes them from other adapters; they are saved. **Without it this is a random
    projection,** which learns little: the method is the recycling. A row costs what LoRA of this rank does, and a
    call 2 rank K (in + out) operations more. C_B starts at zero, so that nothing changes at first; the authors' code
    starts at the coefficients of one of the adapters it recycles, or at random ones, and takes K = 64 for rank 8.

    >>> adapter = EigenLoRAx((6, 8), rank=2, components=3, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters())
    12
    """

    VA: Tensor
    VB: Tensor

    learning_rate = 0.02

    def __init__(
        self, shape: tuple[int, ...], *, rank: int = 8, components: int = 16, generator: Generator | None = None
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(components, min(out, n), f"the shorter side of a weight of shape {shape}", "components")
        _check.rank(rank, components, "the number of components")
        self.register_buffer(
            "VA", torch.linalg.qr(torch.randn(n, components, generator=generator))[0].mT.contiguous()
        )
        self.register_buffer("VB", torch.linalg.qr(torch.randn(out, components, generator=generator))[0].contiguous())
        self.CA = nn.Parameter(torch.randn(rank, components, generator=generator) / components**0.5)
        self.CB = nn.Parameter(torch.zeros(components, rank))

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(self.VB @ self.CB, self.CA @ self.VA)


def recycle(adapters: Adapters, name: str, sources: Sequence[str]) -> dict[str, float]:
    """Give the EigenLoRAx ``name`` the principal directions of other adapters, and return the energy they hold.

    On each layer, V_B and V_A are the first singular vectors of the sources' updates side by side, and one above the
    other. Each update counts by its square, whatever its method and however it is factored; the paper takes the
    directions of the matrices A and B, centred, which depend on how a product is split. The energy is the smaller
    share of the two sides. Directions that the sources do not span stay as they were, made orthogonal to the rest.
    """
    made: dict[str, Any] = dict(adapters.of(name))
    given = [updates(adapters, source) for source in sources]
    kept: dict[str, float] = {}
    for path, own in made.items():
        found = [change[path] for change in given if path in change]
        if not isinstance(own, EigenLoRAx) or not found or own.VB.ndim > 2:
            raise ValueError(
                f"{path} of {name!r} is no EigenLoRAx of a single matrix, or none of {list(sources)} changes it"
            )
        left, one = _principal(torch.cat([reduced(update) for update in found], 1), own.VB)
        right, other = _principal(torch.cat([reduced(update, right=True) for update in found], 1), own.VA.mT)
        own.VB.copy_(left)
        own.VA.copy_(right.mT)
        kept[path] = min(one, other)
    return kept


def _principal(x: Tensor, spare: Tensor) -> tuple[Tensor, float]:
    """The first left singular vectors of x, filled up with spare directions, and their share of the squares."""
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    count = min(spare.shape[1], int((s > s[0] * 1e-6).sum()))
    whole = torch.linalg.qr(torch.cat((u[:, :count], spare.to(u.dtype)), 1))[0][:, : spare.shape[1]]
    energy = float(s[:count].square().sum() / s.square().sum()) if float(s[0]) else 0.0
    return whole, energy
