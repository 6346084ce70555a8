"""Parts of the contract of quantisers: the numbers given, the result, what it stands for, its error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.formats import Format, Quantized
from polyad.formats.stored.quantized import middle, spread
from polyad.testing._contract import normal

OWN = ("options", "bound")
"""Entries of an example that are for the contract and not for the method."""


def call_quantizer(card: Card, x: Any, options: Mapping[str, Any] | None = None, **given: Any) -> Any:
    """The result for x, with the example's arguments, one of its ``options`` and those given here."""
    example = {name: value for name, value in card.example.items() if name not in OWN}
    return card.function(x, **{**example, **(options or {}), **given})


def variants(card: Card) -> tuple[Mapping[str, Any], ...]:
    """The options under which a quantiser is held to the contract: none, and each of its example's."""
    return ({}, *card.example.get("options", ()))


def numbers(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Rows of every sort, (6, 40) each: normal, off zero, of one sign, constant, mostly zero, of mixed size."""
    x = normal(6, 40, dtype=torch.float64)
    single = torch.zeros_like(x)
    single[:, 3] = x[:, 3]
    sizes = torch.logspace(-4, 4, 6, dtype=torch.float64)[:, None]
    sorts = {
        "normal": x, "off zero": x + 3, "positive": x.abs() + 0.1, "negative": -x.abs(), "single": single,
        "constant": torch.full_like(x, 0.3), "below zero": torch.full_like(x, -1234.5), "zero": torch.zeros_like(x),
        "heavy": x**3, "sizes": x * sizes, "far off": x + 1000,
    }  # fmt: skip
    return {name: value.to(dtype) for name, value in sorts.items()}


def exact(format: Format) -> Tensor:
    """The numbers for which codes stand, in float64."""
    return format.dequantize(torch.float64) if isinstance(format, Quantized) else format.to_dense().double()


def relative_error(q: Format, x: Tensor) -> float:
    """The relative Frobenius error, in float64 and at any scale."""
    wide = x.double()
    top = wide.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    return float(((exact(q) - wide) / top).norm() / (wide / top).norm())


def every_result(card: Card) -> Iterator[tuple[str, Tensor, Format]]:
    """Every sort of numbers in few and many bits under every option, in two precisions, with the result."""
    for options in variants(card):
        for bits in (2, 4, 8):
            for dtype in (torch.float32, torch.bfloat16):
                for name, x in numbers(dtype).items():
                    what = f"{name} numbers of {dtype} in {bits} bits ({dict(options)})"
                    yield what, x, call_quantizer(card, x, options, bits=bits)


def grid(q: Quantized) -> tuple[Tensor, Tensor]:
    """Scales and zero points at every number, in float64."""
    zero = q.zero if isinstance(q.zero, Tensor) else torch.full(q.scale.shape, _zero(q), dtype=torch.float64)
    scale, zeros = (spread(t.double(), q.block, q.size) for t in (q.scale, zero))
    return scale.where(scale > 0, 1.0), zeros


def _zero(q: Quantized) -> float:
    return middle(q.bits) if q.zero is None else float(q.zero)
