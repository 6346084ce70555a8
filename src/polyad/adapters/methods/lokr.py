"""An update that is a Kronecker product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import Format, Kronecker
from polyad.layers import Factors

Draw = Literal["unit", "lycoris", "diffusekrona", "peft"]
"""How the factors start: as here, or as three authors have it."""


@method(
    "adapter",
    name="lokr",
    example={"factor": 2},
    instead=(
        "Where accuracy counts more than a third of the numbers: `lora`, which is better at each one's best rate."
    ),
    papers=(
        Paper(
            "Edalati, Tahaei, Kobyzev, Nia, Clark, Rezagholizadeh",
            2022,
            "KronA: Parameter Efficient Tuning with Kronecker Adapter",
            "arXiv:2212.10650",
        ),
        Paper(
            "Yeh, Hsieh, Gao, Yang, Oh, Gong",
            2023,
            "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation",
            "arXiv:2309.14859",
            adds="the small first factor, chosen by the largest size that it may have",
        ),
        Paper(
            "Marjit, Singh, Mathur, Paul, Yu, Chen",
            2024,
            "DiffuseKronA: A Parameter Efficient Fine-tuning Method for Personalized Diffusion Model",
            "arXiv:2402.17412",
            handle="diffusekrona",
        ),
    ),
)
class LoKr(Adapter):
    """``ΔW = alpha · first ⊗ second`` for W of shape (out, in).

    first has shape (a, c), the largest divisors of out and in up to ``factor`` and up to their roots, so that it is
    the smaller factor, or ``factor`` itself where that is a pair. It is normal of variance 1 / c, and second, of
    shape (out / a, in / c), zero, so that the larger factor learns first, and as fast whatever ``factor`` is. Other
    codes start otherwise, by ``draw``: LyCORIS with a uniform first of variance 1 / (3 c), DiffuseKronA with a normal
    one of deviation 1 / a, both with second at zero; peft with first at zero and a uniform second of variance
    c / (3 in). Trained are a c + out · in / (a c) numbers, the fewer the larger ``factor``. The product is
    applied without being formed: a row takes at most 2 (a in + out in / c) operations on top of the base's.

    >>> adapter = LoKr((6, 8), factor=4, generator=torch.Generator().manual_seed(0))
    >>> adapter.factors()
    Kronecker(shape=(6, 8), rank=1, dtype=float32, parameters=16, bytes=64)
    """

    sized_by = "factor"

    learning_rate = 0.0005

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        factor: int | Sequence[int] = 8,
        alpha: float = 1.0,
        draw: Draw = "unit",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        sides = matrix(shape)
        if isinstance(factor, int):
            _check.rank(factor, min(sides), f"the shorter side of a weight of shape {shape}", "factor")
            factor = [max(k for k in range(1, factor + 1) if n % k == 0 and k * k <= n) for n in sides]
        if len(factor) != 2 or any(k < 1 or n % k for k, n in zip(factor, sides, strict=True)):
            raise ValueError(f"factor={tuple(factor)} must divide the sides {sides} of a weight of shape {shape}")
        a, c = factor
        if draw not in get_args(Draw):
            raise ValueError(f"draw={draw!r} is unknown; choose from {list(get_args(Draw))}")
        first, second = _start(draw, (a, c), (sides[0] // a, sides[1] // c), generator)
        self.factors = Factors(Kronecker(first.unsqueeze(0), second.unsqueeze(0)))
        self.scale = alpha

    def update(self, base: Frozen) -> Format:  # noqa: ARG002
        return self.factors()


def _start(
    draw: Draw, first: tuple[int, int], second: tuple[int, int], generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """The two factors, of these shapes, one of which is zero."""
    a, c = first
    if draw == "peft":
        return torch.zeros(first), _uniform(second, generator)
    if draw == "lycoris":
        return _uniform(first, generator), torch.zeros(second)
    return torch.randn(first, generator=generator) / (c**0.5 if draw == "unit" else a), torch.zeros(second)


def _uniform(shape: tuple[int, int], generator: Generator | None) -> Tensor:
    """Within ±1/√columns, as the weight of a linear layer."""
    return (2 * torch.rand(shape, generator=generator) - 1) / shape[1] ** 0.5
