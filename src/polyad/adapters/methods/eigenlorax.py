"""LoRA in the principal directions of other adapters: only coefficients are trained."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
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
