"""Fewer bits the older the token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Quantized
from polyad.quantize import round_to_nearest

GENAI_MATH = Paper(
    "Li", 2024, "The Nature of Mathematical Modeling and Probabilistic Optimization Engineering in Generative AI",
    "arXiv:2410.18441", "genai-math",
    "staircase adaptive quantisation alone, one of the paper's five proposals, as a function of keys or values that "
    "are all there: no cache can use it; the others (sub-word merging, search of word2vec's settings, a factored "
    "position code, block-sparse FlashAttention) are not here",
)  # fmt: skip


@method(
    "operation",
    example={
        "arguments": lambda g: {"x": torch.randn(2, 20, 8, generator=g, dtype=torch.float64), "group": 8},
        "off": lambda steps, x, **_: _excess(steps, x),
    },
    instead=("Always: `kivi`, or `round_to_nearest` with equal bits for all tokens, loses less at equal bytes."),
    papers=(GENAI_MATH,),
)
def staircase(
    x: Tensor, bits: Sequence[int] = (2, 4, 8), *, share: Sequence[float] = (0.4, 0.4, 0.2), **options: Any
) -> list[Quantized]:
    """Keys or values (…, tokens, channels), oldest first, cut along the tokens; step i has ``bits[i]``.

    ``share`` says which part of the tokens each step has, to sum to 1; ``options`` go to ``round_to_nearest``
    (``group=(32, 1)`` for keys by channel, ``group=32`` for values by token). Steps that get no token are left out.
    ``torch.cat`` of their ``to_dense`` along the tokens gives x back. By default four bits a number on average.

    Quantises what is exact. A cache that went down the staircase while it grows would quantise codes again, each time
    with the error of the next step: the paper says no more of this than that bits fall with age, and a codec of ours
    encodes a token once, so this is a function, one that no cache can use.
    On SmolLM2 equal bits are better at equal bytes: what two bits do to the oldest tokens costs most.

    >>> [(q.shape[0], q.bits) for q in staircase(torch.randn(20, 8), group=8)]
    [(8, 2), (8, 4), (4, 8)]
    """
    _check.dimensions("x", x, 2)
    if len(bits) != len(share) or min(share) < 0 or abs(sum(share) - 1) > 1e-9:
        raise ValueError(f"share={tuple(share)} must give bits={tuple(bits)} a part each, that sum to 1")
    ends = [round(sum(share[: i + 1]) * x.shape[-2]) for i in range(len(share))]
    parts = zip(bits, [0, *ends], ends, strict=False)
    return [round_to_nearest(x[..., first:end, :], b, **options) for b, first, end in parts if end > first]


def _excess(steps: Sequence[Quantized], x: Tensor) -> float:
    """The largest error of a step over half of the coarsest grid of its bits, oldest tokens first."""
    parts = zip(steps, x.split([q.shape[-2] for q in steps], -2), strict=True)
    return max(
        float((q.to_dense() - part).abs().max() / (part.max() - part.min())) * (2.01**q.bits - 1) for q, part in parts
    )
