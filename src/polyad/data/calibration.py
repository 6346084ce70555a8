"""The windows on which statistics are collected, and those on which quality is measured."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from polyad import _check
from polyad.data.records import Records
from polyad.data.rendered import render_records
from polyad.data.rows import dataset_rows
from polyad.data.sources import read
from polyad.data.text import Split, Text, cached_split, digest, windows
from polyad.models.source import origin
from polyad.models.special_tokens import BARE, Frame, encoder, frame, identity

LENGTH = 1024
CALIBRATION_WINDOWS = 64  # over all texts
EVALUATION_WINDOWS = 24  # of each text
PROBE_LENGTH = 512
PROBES = 16  # inputs that are no text

Source = str | os.PathLike[str] | Text | Records | Any
"""A built-in name, a path, a Text, Records, or a ``datasets`` object (a list of mappings too)."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Token ids to collect statistics on: ``windows`` (count, length), and a few shorter ones, ``probe``.

    ``digests`` maps each text's name to the sha256 of its windows.
    """

    windows: Tensor
    probe: Tensor
    digests: Mapping[str, str]


def calibration(
    model: Any,
    sources: Source | Iterable[Source] | Calibration | Tensor,
    *,
    count: int = CALIBRATION_WINDOWS,
    length: int = LENGTH,
) -> Calibration:
    """Evenly spaced windows of the calibration part of each text, the same number from each.

    ``sources`` are names (``stdlib``, ``sotu``), paths, Texts or ``datasets`` objects; a text too short for its share
    gives what it has.
    A tensor (count, ...) of floating-point numbers is taken for the model's own inputs, all of them, one an item.
    """
    if isinstance(sources, Calibration):
        return sources
    if isinstance(sources, Tensor):
        return of_inputs(sources)
    length = window_length(model, length)
    parts = splits(model, sources)
    each = -(-count // len(parts))
    by_text = {
        part.name: windows(part.calibration, length, each, name=f"the text {part.name!r}", frame=part.frame)
        for part in parts
    }
    probes = 2 if len(parts) == 1 else 1
    probe = torch.cat([shorten(w[len(w) // 2 :][:probes], PROBE_LENGTH, parts[0].frame) for w in by_text.values()])
    return Calibration(torch.cat(list(by_text.values())), probe, {name: digest(w) for name, w in by_text.items()})


def shorten(rows: Tensor, length: int, frame: Frame) -> Tensor:
    """Windows of at most this length, within the same ``frame`` as before."""
    if rows.shape[1] <= length:
        return rows
    end = len(frame.after)
    return torch.cat([rows[:, : length - end], rows[:, rows.shape[1] - end :]], 1)


def of_inputs(inputs: Tensor) -> Calibration:
    """A calibration on inputs other than text, such as pictures (count, channels, height, width)."""
    if not inputs.is_floating_point() or inputs.ndim < 2 or not len(inputs):
        raise ValueError(
            f"calibrate is a tensor of {inputs.dtype} and shape {tuple(inputs.shape)}; give floating-point inputs of "
            "the model (count, ...), a text, or a Calibration of token ids"
        )
    _check.finite("calibrate", inputs)
    spread = torch.linspace(0, len(inputs) - 1, min(PROBES, len(inputs))).round().long()
    raw = inputs.detach().cpu().contiguous().float().numpy().astype("<f4").tobytes()
    return Calibration(inputs, inputs[spread], {"inputs": hashlib.sha256(raw).hexdigest()})


def evaluation(
    model: Any, sources: Source | Iterable[Source], *, count: int = EVALUATION_WINDOWS, length: int = LENGTH
) -> dict[str, Tensor]:
    """Evenly spaced, non-overlapping windows of the evaluation part of each text, by name; (count, length)."""
    length = window_length(model, length)
    return {
        part.name: windows(
            part.evaluation,
            length,
            count,
            name=f"the evaluation part of {part.name!r}, its last 30 %,",
            frame=part.frame,
        )
        for part in splits(model, sources)
    }


def check_predicts(model: Any) -> None:
    """Refuse models that predict no next token: what they return has no perplexity."""
    if not getattr(model, "can_generate", lambda: False)():
        raise ValueError(
            f"a {type(model).__name__} predicts no next token, so it has no perplexity; plan, apply and save it from "
            "Python, and compare its own outputs before and after (docs/other_models.md)"
        )


def splits(model: Any, sources: Source | Iterable[Source]) -> list[Split]:
    """The texts, tokenised for this model, in a part for calibration and one for evaluation.

    Neither holds special tokens; ``frame`` of each is what the tokenizer puts around a row for this model.
    """
    listed: list[Any] = [sources] if _is_single(sources) else list(sources)  # pyright: ignore[reportArgumentType]
    if not listed:
        raise ValueError("no text is given; name one of stdlib and sotu, or a file")
    encode, tokenizer = encoder(model), origin(model).tokenizer
    texts = [read(source) for source in listed]
    names = [text.name for text in texts]
    if len(set(names)) < len(names):
        raise ValueError(f"two texts are called alike ({', '.join(names)}); rename one of the files")
    name, around = identity(model), frame(model)
    return [
        render_records(text, encode, tokenizer, around)
        if isinstance(text, Records)
        else replace(cached_split(text, encode, name), frame=around)
        for text in texts
    ]


def _is_single(sources: Any) -> bool:
    return isinstance(sources, str | os.PathLike | Text | Records) or dataset_rows(sources) is not None


def evaluation_counted(
    model: Any, sources: Source | Iterable[Source], *, count: int = EVALUATION_WINDOWS, length: int = LENGTH
) -> dict[str, Tensor]:
    """Of ``evaluation``'s windows the tokens that a loss counts, (count, length), for the texts that hold prompts."""
    length, counted = window_length(model, length), {}
    for part in splits(model, sources):
        if part.learned is not None and not bool(part.learned[1].all()):
            marks = windows(part.learned[1], part.frame.room(length), count, frame=BARE)
            sides = [marks.new_zeros(len(marks), len(side)) for side in (part.frame.before, part.frame.after)]
            counted[part.name] = torch.cat([sides[0], marks, sides[1]], 1)
    return counted


def window_length(model: Any, length: int) -> int:
    """``length``, or the longest context that the model takes where that is shorter."""
    most = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return length if most is None else min(length, most)
