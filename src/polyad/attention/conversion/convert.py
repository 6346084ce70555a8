"""A model's attention exchanged for latent attention, calibrated and healed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from polyad import train
from polyad._callback import Callback
from polyad.attention.conversion.transmla import transmla
from polyad.data import Frame, digest, frame
from polyad.models import Undo, blocks, collect, replace

CALIBRATED = 64
"""Windows, at most, from which the moments are taken, evenly spaced: more change little."""
ROW = 256
"""Tokens of a row of healing."""


def convert_attention(
    model: nn.Module,
    *,
    rank: int | None = None,
    rope: int | None = None,
    windows: Iterable[Tensor] = (),
    heal: int = 0,
    rate: float = 1e-4,
    state: str | Path | None = None,
    callback: Callback | None = None,
) -> Undo:
    """Put ``transmla`` in place of the model's attention, calibrated on windows of token ids. Returns its undo.

    With ``heal``, a number of steps, the new attention is then trained to predict as the model did, on two rows of
    256 tokens of the windows a step (``polyad.train.heal``, which explains ``rate`` and ``state``).
    """
    moments, windows = None, list(windows)
    if heal and rank is None:
        raise ValueError(f"heal={heal} was given without rank; the exact conversion leaves nothing to heal")
    if rank is not None:
        needs = {b.roles["k"]: ("second", "mean") for b in blocks(model, ("qk",))}
        moments = collect(model, needs, windows[:: -(-len(windows) // CALIBRATED) or 1], callback=callback)
    modules = transmla(model, rank=rank, rope=rope, moments=moments)
    if heal:
        asked = {"rank": rank, "rope": rope, "windows": digest(torch.cat([w.flatten() for w in windows]).cpu())}
        rows = _rows(windows, frame(model))
        train.heal(model, modules, rows, steps=heal, rate=rate, state=state, asked=asked, callback=callback)
    return replace(model, modules)


def _rows(windows: list[Tensor], around: Frame) -> Callable[[int], Tensor]:
    """Two rows of at most ROW tokens a step, of all windows in an order drawn once.

    Where the windows begin with what the tokenizer puts first, so does every row.
    """
    flat = [window.flatten() for window in windows]
    around = around if all(around.starts(window) for window in flat) else Frame()
    length = around.room(min(ROW, min(window.numel() for window in flat)))
    rows = around.enclose(torch.cat([around.strip(window).unfold(0, length, length) for window in flat]))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return lambda step: rows[order.roll(-2 * step)[:2]]
