"""Linear attention: its operations beside those of softmax attention over a long context. Seconds on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from polyad._callback import Callback
from polyad.attention import GroupedAttention, LinearAttention
from polyad.attention.rotary import tables
from polyad.claims.record import Line, Outcome

MINUTES = 1
WIDTH, HEADS, TOKENS = 256, 8, 4096


def operations(layer: nn.Module, *more: Any) -> int:
    """The operations of one call over all tokens; shapes alone are computed."""
    counter = FlopCounterMode(display=False)
    with counter:
        layer.to("meta")(torch.empty(1, TOKENS, WIDTH, device="meta"), *more)
    return counter.get_total_flops()


def claim(callback: Callback | None = None) -> Outcome:  # noqa: ARG001 - too short to report progress
    """The share of softmax attention's operations, projections included."""
    table = tuple(t.to("meta") for t in tables(0, TOKENS, WIDTH // HEADS))
    linear = operations(LinearAttention(WIDTH, heads=HEADS))
    softmax = operations(GroupedAttention(WIDTH, HEADS, WIDTH // HEADS, key_heads=HEADS), table)
    line = Line(
        assertion=f"over {TOKENS} tokens linear attention takes less than a quarter of the operations of softmax's",
        figure=linear / softmax,
        error=0,
        relation="<=",
        bound=0.25,
        rival="softmax attention of as many heads",
        tolerance=0.0,
    )
    return Outcome([line], {"operations": {"linear": linear, "softmax": softmax}})
