"""The batches of a fine-tuning, which follow from the texts, the seed and the step."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from typing import Any

import torch
from torch import Tensor

from polyad.adapters.training.settings import Finetuning
from polyad.data.calibration import splits
from polyad.data.preview import Piece, marked_pieces
from polyad.data.text import Split, digest
from polyad.models.loading import origin

FIRST = 4
"""Batches from which methods start that read a gradient or statistics."""


class Tokens:
    """The batches of a fine-tuning; that of step ``step`` follows from the texts, the seed and the step alone."""

    def __init__(self, model: Any, asked: Finetuning) -> None:
        self.model, self.asked = model, asked
        most = getattr(model.config, "max_position_embeddings", None)
        self.length = asked.length if most is None else min(asked.length, most)
        if self.length < 2 or asked.batch < 1:
            raise ValueError(
                f"length={self.length} and batch={asked.batch} hold nothing to learn; give a length of 2 "
                "and a batch of 1 or more"
            )
        parts = splits(model, asked.texts)
        self.frame = parts[0].frame
        self.room = self.frame.room(self.length)
        for part in parts:
            if len(part.calibration) < self.room:
                raise ValueError(
                    f"{part.name!r} has {len(part.calibration)} tokens to train on, fewer than one row of "
                    f"{self.length}; give a longer text or a shorter --length"
                )
        self.ids = [part.calibration for part in parts]
        self.learned = [None if part.learned is None else part.learned[0] for part in parts]
        self.starts = [_row_starts(part, self.room, self.length) for part in parts]
        around = [str(self.frame)] if len(self.frame) else []  # another training where each row has a start token
        around += [digest(marks.long()) for marks in self.learned if marks is not None]
        self.digest = hashlib.sha256("".join([*map(digest, self.ids), *around]).encode()).hexdigest()

    def _places(self, step: int) -> list[tuple[int, int]]:
        """The rows of a step, each a text's number and the place in it; those of examples begin with one."""
        generator = torch.Generator().manual_seed(1_000_003 * self.asked.seed + step)
        room = [len(ids) - self.room + 1 for ids in self.ids]
        places: list[tuple[int, int]] = []
        for place in torch.randint(sum(room), (self.asked.batch,), generator=generator).tolist():
            text = 0
            while place >= room[text]:
                place, text = place - room[text], text + 1
            starts = self.starts[text]
            if starts is not None:
                place = starts[max(0, bisect_right(starts, place) - 1)]
            places.append((text, place))
        return places

    def rows(self, step: int) -> Tensor:
        """Token ids (batch, length): rows from anywhere in the texts, longer ones more often.

        Each begins with what the tokenizer puts first. Rows of examples that stay whole begin where one does.
        """
        windows = [self.ids[text][place : place + self.room] for text, place in self._places(step)]
        return self.frame.enclose(torch.stack(windows)).to(self.model.device)

    def counted(self, step: int) -> Tensor | None:
        """The tokens of ``rows`` that the loss counts, bool (batch, length); None where it counts all."""
        if all(marks is None for marks in self.learned):
            return None
        rows = torch.zeros(self.asked.batch, self.length, dtype=torch.bool)
        first = len(self.frame.before)
        for row, (text, place) in zip(rows, self._places(step), strict=True):
            marks = self.learned[text]
            row[first : first + self.room] = True if marks is None else marks[place : place + self.room]
        return rows.to(self.model.device)

    def loss(self, step: int) -> Tensor:
        """The mean negative log-likelihood of each row's tokens after the first, of those that count."""
        rows, counted = self.rows(step), self.counted(step)
        first = self.frame.first_scored(rows)
        logits, wanted = self.model(rows, use_cache=False).logits[:, first - 1 : -1], rows[:, first:]
        if counted is None:
            return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())
        counted = counted[:, first:]
        return torch.nn.functional.cross_entropy(logits[counted].float(), wanted[counted])

    def preview(self, count: int = 3) -> list[list[Piece]]:
        """The first rows of the training as text, in pieces that the loss counts or leaves out."""
        tokenizer, rows = origin(self.model).tokenizer, []
        for step in range(-(-count // self.asked.batch)):
            marks = self.counted(step)
            for i, ids in enumerate(self.rows(step)):
                rows.append(marked_pieces(tokenizer, ids, None if marks is None else marks[i]))
        return rows[:count]

    def start_loss(self) -> Tensor:
        """The mean loss of the first batches, from whose gradient methods start."""
        return torch.stack([self.loss(step) for step in range(min(FIRST, self.asked.steps))]).mean()


def _row_starts(part: Split, room: int, length: int) -> list[int] | None:
    """The places at which rows of whole examples begin: each example, longer ones in pieces, if anything counts."""
    if part.learned is None:
        return None
    marks, ends = part.learned[0], [*part.starts[1:], len(part.calibration)]
    pieces = (p for start, end in zip(part.starts, ends, strict=True) for p in range(start, end, room))
    places = sorted({min(place, len(marks) - room) for place in pieces})
    # nothing predicts a row's first token
    useful = [place for place in places if bool(marks[place + 1 : place + room].any())]
    if not useful:
        raise ValueError(f"no row of {length} tokens of {part.name!r} reaches a completion; give a longer --length")
    return useful
