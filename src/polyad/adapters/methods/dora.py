"""A low-rank update of the directions of a weight's rows, and their lengths apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter
from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.frozen.low_rank_product import is_traced
from polyad.adapters.methods.lora import LoRA
from polyad.formats import LowRank


@method(
    "adapter",
    name="dora",
    example={"rank": 2, "norm_gradient": True, "inner_alpha": True},
    needs={"weight"},
    papers=(
        Paper(
            "Liu, Wang, Yin, Molchanov, Wang, Cheng, Chen",
            2024,
            "DoRA: Weight-Decomposed Low-Rank Adaptation",
            "arXiv:2402.09353",
        ),
    ),
)
class DoRA(Adapter):
    """``W' = m (W + s B A) / ‖W + s B A‖``, with one length m and one norm a row (an output) of W.

    m starts at the norms of W's rows, A and B as in ``LoRA``, so that nothing changes at first. As in the paper's
    section 4.3 no gradient passes through the norm, unless ``norm_gradient`` is set. It is never taken of a dense
    matrix: it follows from ‖W‖², W Aᵀ and A Aᵀ, in 2 out · in · rank operations a call, and the layer's product is
    not computed twice: the output is ``g (W x + s B A x)`` with g = m / norm. It alone is kept for the gradient of m.
    ``beyond`` is that of ``LoRA``.

    >>> adapter = DoRA((6, 8), rank=2, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters())
    34
    """

    reads_output, drops = True, True
    direction: Any  # a module with A, B and scale, of which the trained tensors are parameters
    magnitude: nn.Parameter
    squares: Tensor

    learning_rate = 0.002

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        alpha: float | None = None,
        norm_gradient: bool = False,
        beyond: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.norm_gradient = norm_gradient
        self.direction = LoRA(shape, rank=rank, alpha=alpha, beyond=beyond, generator=generator)
        self.magnitude = nn.Parameter(torch.ones(shape[0]))
        self.register_buffer("squares", torch.ones(shape[0]), persistent=False)
        self._last: tuple[tuple[Tensor, ...], Tensor] | None = None

    def derive(self, base: Frozen) -> None:
        squares = base.weight.flatten(1).to(self.magnitude.dtype).square().sum(1)
        self.squares.copy_(squares)
        self.magnitude.copy_(squares.sqrt())

    def gains(self, base: Frozen) -> Tensor:
        """m / ‖W + s B A‖, one number a row; kept between calls without gradients for as long as nothing changes."""
        if torch.is_grad_enabled() or is_traced():
            return self._gains(base)
        now = (*self.direction._parameters.values(), self.magnitude, self.squares)
        if self._last is None or not all(_same(t, was) for t, was in zip(now, self._last[0], strict=True)):
            self._last = tuple([t.clone() for t in now]), self._gains(base)
        return self._last[1]

    def _gains(self, base: Frozen) -> Tensor:
        low = self.direction
        return self.magnitude / self._norms(base.weight.flatten(1), low.A, low.B, low.scale)

    def _norms(self, weight: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
        if not self.norm_gradient:
            A, B = A.detach(), B.detach()
        crossed = ((A @ weight.to(A.dtype).mT).mT * B).sum(1)  # the thin matrix in front, as in ``low_rank_product``
        of_update = (B @ (A @ A.mT) * B).sum(1)
        norms = (self.squares + 2 * s * crossed + s * s * of_update).clamp(min=0).sqrt()
        return norms.clamp(min=torch.finfo(norms.dtype).tiny)  # a row of zeros has no direction, and stays

    def update(self, base: Frozen) -> Tensor:
        g = self.gains(base).unsqueeze(1)
        weight = base.weight.flatten(1)
        return (g - 1) * weight + g * self.direction.scale * (self.direction.B @ self.direction.A)

    def output(self, x: Tensor, base: Frozen) -> Tensor:
        if not base.can_fuse(x):
            return base.add_bias(self._scaled_output(x, base(x), base))
        low, dropout = LowRank(self.direction.B, self.direction.A), self.dropout if self.training else 0.0
        return base.fuse_low_rank(low, x, self.direction.scale, dropout, self.gains(base))

    def forward(self, x: Tensor, y: Tensor | None, base: Frozen) -> Tensor:
        assert y is not None
        return self._scaled_output(x, y, base) - y

    def _scaled_output(self, x: Tensor, y: Tensor, base: Frozen) -> Tensor:
        low, dropout = LowRank(self.direction.B, self.direction.A), self.dropout if self.training else 0.0
        return base.add_update(y, low, x, self.direction.scale, dropout, self.gains(base))


def _same(x: Tensor, was: Tensor) -> bool:
    """True for equal numbers; a tensor's version would not tell, since writing through ``.data`` keeps it."""
    return x.dtype == was.dtype and x.device == was.device and torch.equal(x, was)
