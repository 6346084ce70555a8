"""Training of quantised weights: a low-rank factor learns, and is merged into the codes from time to time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import Format, LowRank, Quantized
from polyad.layers import Factors
from polyad.linalg import left_singular
from polyad.quantize import round_to_nearest


@method(
    "adapter",
    makes=None,
    name="loqt",
    example={"rank": 2, "group": 4},
    papers=(
        Paper(
            "Loeschcke, Toftrup, Kastoryano, Belongie, Snæbjarnarson",
            2024,
            "LoQT: Low Rank Adapters for Quantized Training",
            "arXiv:2405.16528",
            handle="loqt",
        ),
    ),
)
class LoQT(Adapter):
    """``ΔW = alpha · Pᵀ B`` with frozen P (rank, out), stored in codes, and trained B (rank, in), zero at first.

    Where out exceeds in, ``ΔW = alpha · B P`` with P (rank, in) and B (out, rank). P is random orthonormal until
    ``absorb`` takes it from the gradient, merges the update into the weight and starts anew, at ``merge_steps``. So
    a training that the rank does not bound needs B, Adam's two moments of it, and codes for all else; with Adam and
    P in full (``bits=None``) it takes GaLore's steps, as ``ProjectedAdam`` does them with ``scale=alpha``. ``group``
    numbers of P share a scale. A row costs what LoRA's does, and a call to read P.

    It wants high learning rates: in the claim's small decoder 0.03 (held-out 1.87 nats a byte), where full training
    and a LoRA on codes that is never merged are best at 0.01 (2.05 and 1.92); at 0.01 it is behind both (2.08).

    >>> adapter = LoQT((6, 8), rank=2, group=6, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters()), adapter.P().nbytes
    (16, 12)
    """

    learning_rate = 0.005

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        bits: int | None = 4,
        group: int = 64,
        alpha: float = 0.4,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        self.wide, self.bits, self.group, self.scale = out <= n, bits, group, alpha
        directions = torch.linalg.qr(torch.randn(min(out, n), rank, generator=generator)).Q.mT.contiguous()
        self.B = nn.Parameter(torch.zeros((rank, n) if self.wide else (out, rank)))
        if bits is None:
            self.register_buffer("P", directions)
        else:
            self.P = Factors(round_to_nearest(directions, bits, group=group), trainable=False)

    def projection(self) -> Tensor:
        """P as numbers, (rank, shorter side)."""
        P: Any = self.P
        P = P() if isinstance(P, Factors) else P
        return P.dequantize(self.B.dtype) if isinstance(P, Quantized) else P

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        P = self.projection()
        return LowRank(P.mT, self.B) if self.wide else LowRank(self.B, P)

    def directions(self, gradient: Tensor) -> Tensor | None:
        """The leading singular vectors of a gradient (out, in) on the shorter side, (rank, side); of zeros, None."""
        _check.finite("the gradient", gradient)
        rank = self.B.shape[0 if self.wide else 1]
        vectors = left_singular(gradient if self.wide else gradient.mT, rank)[0] if bool(gradient.any()) else None
        return None if vectors is None else vectors.mT.contiguous()

    @torch.no_grad()
    def turn(self, directions: Tensor) -> None:
        """Put other directions (rank, side) in the place of P."""
        P: Any = self.P
        if self.bits is None:
            P.copy_(directions)
        else:
            put_format(P, round_to_nearest(directions.float(), self.bits, group=self.group))

    def product(self, B: Tensor) -> Tensor:
        """``Pᵀ B``, or ``B P``, as a matrix (out, in) without ``scale``."""
        P = self.projection()
        return P.mT @ B if self.wide else B @ P

    def solve_factor(self, rest: Tensor) -> Tensor:
        """Solve for the B whose update is nearest to ``rest`` (out, in)."""
        inverse = torch.linalg.pinv(self.projection()) / self.scale
        return inverse.mT @ rest if self.wide else rest @ inverse


def put_format(module: Any, format: Format) -> None:
    """Put a format's numbers into the module that holds another of the same description."""
    tensors = format.tensors()
    for key, tensor in (*module.named_parameters(), *module.named_buffers()):
        tensor.copy_(tensors[key])
