"""An update that is a product, entry by entry, of two low-rank matrices."""

from __future__ import annotations

import torch
from torch import Generator, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.decompose.matrices.masked_als import LU
from polyad.formats import Format, Hadamard


@method(
    "adapter",
    name="loha",
    example={"rank": 2},
    papers=(
        Paper(
            "Hyeon-Woo, Ye-Bin, Oh",
            2022,
            "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning",
            "arXiv:2108.06098",
        ),
        Paper(
            "Yeh, Hsieh, Gao, Yang, Oh, Gong",
            2023,
            "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation",
            "arXiv:2309.14859",
            adds="the start and the use beside a frozen weight",
        ),
        LU,
    ),
)
class LoHa(Adapter):
    """``ΔW = alpha / rank · (B₁ A₁) * (B₂ A₂)``, entry by entry: of rank up to rank² with 2 rank (in + out) numbers.

    A₁ and A₂ are standard normal, B₁ normal of deviation 0.1 and B₂ zero, so that nothing changes at first. Where
    rank² is at most a quarter of the shorter side, the update is applied as the matrix of that rank which it is, in
    2 rank² (in + out) operations a row; otherwise the host counts what multiplying it out costs.
    ``beyond`` lets ``rank`` exceed the shorter side, as files of other libraries do.

    >>> adapter = LoHa((6, 8), rank=2, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters()), adapter.update(None).rank
    (56, (2, 2))
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        alpha: float | None = None,
        beyond: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(rank, 2**31 if beyond else min(out, n), f"the shorter side of a weight of shape {shape}")
        self.B1 = nn.Parameter(0.1 * torch.randn(out, rank, generator=generator))
        self.A1 = nn.Parameter(torch.randn(rank, n, generator=generator))
        self.B2 = nn.Parameter(torch.zeros(out, rank))
        self.A2 = nn.Parameter(torch.randn(rank, n, generator=generator))
        self.scale = (rank if alpha is None else alpha) / rank
        self.thin = 4 * rank * rank <= min(out, n)

    def update(self, base: Frozen | None) -> Format:  # noqa: ARG002
        product = Hadamard((self.B1, self.B2), (self.A1, self.A2))
        return product.low_rank() if self.thin else product
