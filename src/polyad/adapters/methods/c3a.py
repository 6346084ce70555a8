"""An update made of circulant blocks."""

from __future__ import annotations

import math

import torch
from torch import Generator

from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import Format
from polyad.formats.structured.circulant import Circulant
from polyad.layers import Factors


@method(
    "adapter",
    makes=None,
    name="c3a",
    example={"block": 2},
    papers=(
        Paper(
            "Chen, Cheng, Liu, Gao, Tsung, Li, Li",
            2024,
            "Parameter-Efficient Fine-Tuning via Circular Convolution",
            "arXiv:2407.19342",
            handle="c3a",
        ),
    ),
)
class C3A(Adapter):
    """``ΔW = alpha · [C(w_st)]``, a grid of circulant blocks of size ``block``, each given by its first column.

    ``block`` must divide both sides of the matrix and is their greatest common divisor by default; in · out / block
    numbers are trained. ΔW is of full rank in general, whatever their count. The numbers are normal of deviation
    ``start``, zero by default: the update is linear in them, so zero learns too. (peft divides by in, so that its
    kernels and learning rates are in times as large.) A row costs the Fourier transforms
    of its blocks and 4 in · out / block operations; the host folds the update into the weight where a call has so
    many rows that this is cheaper.

    >>> adapter = C3A((6, 9))
    >>> adapter.factors()
    Circulant(shape=(6, 9), dtype=float32, parameters=18, bytes=72)
    """

    learning_rate = 0.001

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        block: int | None = None,
        alpha: float = 1.0,
        start: float = 0.0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        common = math.gcd(out, n)
        block = common if block is None else block
        if block < 1 or common % block:
            fits = [k for k in range(1, common + 1) if common % k == 0]
            raise ValueError(f"block={block} does not divide both sides of ({out}, {n}); choose from {fits}")
        if not 0 <= start < math.inf:
            raise ValueError(f"start={start} must be a finite standard deviation of at least 0")
        columns = start * torch.randn(out // block, n // block, block, generator=generator)
        self.factors = Factors(Circulant(columns))
        self.scale = alpha

    def update(self, base: Frozen) -> Format:  # noqa: ARG002
        return self.factors()
