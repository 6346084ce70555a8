"""A small trained matrix between a weight's singular vectors, and the lengths of its rows apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.methods.dora import DoRA
from polyad.linalg import truncated_svd


@method(
    "adapter",
    name="edora",
    example={"rank": 2, "norm_gradient": True, "inner_alpha": True},
    needs={"weight"},
    instead=("Where a task asks for more than a core of rank² numbers can give: `dora` of the same rank, or `lora`."),
    papers=(
        Paper(
            "Nasiri, Garraghan",
            2025,
            "EDoRA: Efficient Weight-Decomposed Low-Rank Adaptation via Singular Value Decomposition",
            "arXiv:2501.12067",
            handle="edora",
        ),
    ),
)
class EDoRA(DoRA):
    """``W' = m (W + s U S R Vᵀ) / ‖W + s U S R Vᵀ‖``: ``DoRA`` that trains R (rank, rank) and m (out,) alone.

    U (out, rank), S and V (in, rank) are the largest of W's SVD, frozen and worked out again on loading. R starts at
    zero, so that nothing changes at first; the authors' code draws it with deviation 1e-5, and leaves S at V's side
    of R. Trained are rank² + out numbers. s is ``alpha`` / rank, 1 by default. Norms, costs and ``norm_gradient`` are
    as in ``DoRA``.

    >>> sum(p.numel() for p in EDoRA((6, 8), rank=2).parameters())
    10
    """

    direction: Core

    learning_rate = 0.00015

    def __init__(
        self, shape: tuple[int, ...], *, rank: int = 8, alpha: float | None = None, norm_gradient: bool = False
    ) -> None:
        super().__init__(shape, rank=rank, norm_gradient=norm_gradient)
        self.direction = Core(shape, rank, 1.0 if alpha is None else alpha / rank)

    def derive(self, base: Frozen) -> None:
        super().derive(base)
        core = self.direction
        u, s, v = truncated_svd(base.weight.flatten(1).to(torch.float64), core.R.shape[0])
        core.left.copy_(u * s)
        core.A.copy_(v)

    def output(self, x: Tensor, base: Frozen) -> Tensor:
        core, drops = self.direction, self.training and self.dropout > 0
        if torch.is_grad_enabled() or drops or base.rows(x) >= core.R.shape[0] or not base.can_fuse(x):
            return super().output(x, base)
        low = F.linear(F.linear(F.linear(x, core.A.to(x.dtype)), core.R.to(x.dtype)), core.left.to(x.dtype))
        y = torch.add(base(x), low, alpha=core.scale)  # fewer rows than R has: left R would take longer to form
        return base.add_bias(y * self.gains(base).to(y.dtype))


class Core(Adapter):
    """Frozen ``left`` (out, rank) and A (rank, in) and the trained R between them; B is their product."""

    left: Tensor
    A: Tensor

    def __init__(self, shape: tuple[int, ...], rank: int, scale: float) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        self.register_buffer("left", torch.zeros(out, rank), persistent=False)
        self.register_buffer("A", torch.zeros(rank, n), persistent=False)
        self.R = nn.Parameter(torch.zeros(rank, rank))
        self.scale = scale

    @property
    def B(self) -> Tensor:  # noqa: N802 - what DoRA calls it
        """left R, (out, rank)."""
        return self.left @ self.R
