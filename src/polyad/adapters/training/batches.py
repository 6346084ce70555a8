"""The batches of a fine-tuning, which follow from the texts, the seed and the step."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from polyad.adapters.training.settings import Finetuning
from polyad.data.calibration import splits
from polyad.data.text import digest

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
        around = [str(self.frame)] if len(self.frame) else []  # another training where each row has a start token
        self.digest = hashlib.sha256("".join([*map(digest, self.ids), *around]).encode()).hexdigest()

    def rows(self, step: int) -> Tensor:
        """Token ids (batch, length): rows from anywhere in the texts, longer ones more often.

        Each begins with what the tokenizer puts first.
        """
        generator = torch.Generator().manual_seed(1_000_003 * self.asked.seed + step)
        room = [len(ids) - self.room + 1 for ids in self.ids]
        windows: list[Tensor] = []
        for place in torch.randint(sum(room), (self.asked.batch,), generator=generator).tolist():
            text = 0
            while place >= room[text]:
                place, text = place - room[text], text + 1
            windows.append(self.ids[text][place : place + self.room])
        return self.frame.enclose(torch.stack(windows)).to(self.model.device)

    def loss(self, step: int) -> Tensor:
        """The mean negative log-likelihood of each row's tokens after the first."""
        rows = self.rows(step)
        first = self.frame.first_scored(rows)
        logits = self.model(rows, use_cache=False).logits[:, first - 1 : -1].float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, first:].flatten())

    def start_loss(self) -> Tensor:
        """The mean loss of the first batches, from whose gradient methods start."""
        return torch.stack([self.loss(step) for step in range(min(FIRST, self.asked.steps))]).mean()
