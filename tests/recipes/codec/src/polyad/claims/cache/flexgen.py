"""FlexGen's four bits: what attention over them loses on normal keys and values. Seconds on one core."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.cache import FlexGen
from polyad.claims._data_hash import sha
from polyad.claims.record import Line, Outcome, mean_and_error

MINUTES = 1
SEEDS, SHAPE = 6, (1, 4, 256, 64)


def tokens(seed: int) -> list[Tensor]:
    """Normal keys, values and queries (batch, heads, tokens, channels)."""
    generator = Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) for _ in range(3)]


def attention_error(seed: int, bits: int) -> float:
    """The relative error of attention over the stored keys and values."""
    keys, values, queries = tokens(seed)
    codec = FlexGen(bits=bits, group=64)
    stored_keys, stored_values = codec.encode(keys, values, queries)
    exact = (queries @ keys.mT / 8).softmax(-1) @ values
    coded = codec.mix((codec.scores(queries, stored_keys, None) / 8).softmax(-1), stored_values)
    return float((coded - exact).norm() / exact.norm())


def claim(callback: Callback | None = None) -> Outcome:  # noqa: ARG001 - too short to report progress
    """The error of attention over four bits, and over two."""
    errors = {bits: [attention_error(seed, bits) for seed in range(SEEDS)] for bits in (2, 4)}
    line = Line(
        assertion="four bits by token lose little: the relative error of attention is below 0.2",
        **mean_and_error(errors[4]),
        relation="<=",
        bound=0.2,
        seeds=SEEDS,
        data={"normal tokens": sha(tensor for seed in range(SEEDS) for tensor in tokens(seed))},
        control="two bits, whose error by seed is in the details, pass the bound",
    )
    return Outcome([line], {"error by bits and seed": {str(bits): rows for bits, rows in errors.items()}})
