"""One factor for each output of a layer, or for each input."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter
from polyad.adapters.frozen.frozen import Frozen


@method(
    "adapter",
    name="ia3",
    instead=(
        "For the least loss after the same steps: `lora` of rank 1, which trains about twice as many numbers and "
        "ended 0.031 nats a token lower on SmolLM2."
    ),
    papers=(
        Paper(
            "Liu, Tam, Muqeeth, Mohta, Huang, Bansal, Raffel",
            2022,
            "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
            "arXiv:2205.05638",
            handle="ia3",
            adds="learned factors of a layer's outputs or inputs, which start at one",
        ),
    ),
)
class IA3(Adapter):
    """``W' = diag(l) W, b' = l b`` with one trained factor l an output, (out,), which starts at one.

    The paper scales the outputs of the key and value projections, and the inputs of an MLP's second projection:
    ``side="inputs"`` is ``W' = W diag(l)`` with l (in,), for {pattern: side} on both. A kernel (out, in / groups,
    *kernel) has a factor for each of its in / groups channels there. The forward pass multiplies the layer's own
    product with its bias, out operations a row, or its inputs before a second product; merged, it costs nothing.

    >>> sum(p.numel() for p in IA3((6, 8)).parameters()), IA3((6, 8), side="inputs").factors.shape
    (6, torch.Size([8]))
    """

    factors: Tensor

    def __init__(self, shape: tuple[int, ...], *, side: Literal["outputs", "inputs"] = "outputs") -> None:
        super().__init__()
        if side not in ("outputs", "inputs"):
            raise ValueError(f"side={side!r} is no side of a layer; choose 'outputs' or 'inputs'")
        self.inputs = side == "inputs"
        self.reads_output = not self.inputs
        self.factors = nn.Parameter(torch.ones(shape[1] if self.inputs else shape[0]))

    def update(self, base: Frozen) -> Tensor:
        more, weight = self.factors - 1, base.weight
        ahead = () if self.inputs else (1,)
        return more.reshape(*more.shape, *(1 for _ in (*ahead, *weight.shape[2:]))) * weight

    def bias_update(self, base: Frozen) -> Tensor | None:
        return None if self.inputs or base.bias is None else (self.factors - 1) * base.bias

    def forward(self, x: Tensor, y: Tensor | None, base: Frozen) -> Tensor:
        more = self.factors - 1
        if self.inputs:
            return base(x * more.to(x.dtype)) if base.kind == "linear" else super().forward(x, y, base)
        y = base(x) if y is None or (self.dropout and self.training) else y  # x without the inputs that were dropped
        return base.along(more.to(y.dtype), x) * base.add_bias(y)
