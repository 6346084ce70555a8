"""One factor for each output of a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter
from polyad.adapters.frozen.frozen import Frozen

IA3_PAPER = Paper(
    "Liu, Tam, Muqeeth, Mohta, Huang, Bansal, Raffel", 2022,
    "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", "arXiv:2205.05638",
    handle="ia3", adds="learned factors of a layer's outputs, which start at one",
)  # fmt: skip


@method("adapter", name="ia3", papers=(IA3_PAPER,))
class IA3(Adapter):
    """``W' = diag(l) W`` with one trained factor l an output, (out,), which starts at one.

    The paper scales the outputs of the key and value projections, and the inputs of an MLP's second projection, which
    are outputs of what stands before it; here every layer that is chosen has its outputs scaled. The forward pass
    multiplies the layer's own product, out operations a row; merged, it costs nothing.

    >>> sum(p.numel() for p in IA3((6, 8)).parameters())
    6
    """

    reads_output = True

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(shape[0]))

    def update(self, base: Frozen) -> Tensor:
        return (self.factors - 1).unsqueeze(1) * base.weight.flatten(1)

    def forward(self, x: Tensor, y: Tensor | None, base: Frozen) -> Tensor:
        y = base(x) if y is None or (self.dropout and self.training) else y  # x without the inputs that were dropped
        return base.along((self.factors - 1).to(y.dtype), x) * y
