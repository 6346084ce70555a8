"""SmolLM2 and the texts that claims on compression stand on, and a perplexity ratio on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from polyad._callback import Callback
from polyad.compress import Plan, plan
from polyad.compress.apply import apply_with_undo
from polyad.data import Calibration, calibration, digest, evaluation
from polyad.evaluation.quality import losses, original_losses
from polyad.models import load

TEXTS = ("stdlib", "sotu")


class Bench:
    """SmolLM2-135M in float32 with ``calibrate`` windows over both texts and ``windows`` of each to evaluate on."""

    def __init__(self, *, calibrate: int = 16, windows: int = 6, texts: tuple[str, ...] = TEXTS) -> None:
        self.model: Any = load("smollm2", dtype=torch.float32)
        self.calibration: Calibration = calibration(self.model, texts, count=calibrate)
        self.texts: Mapping[str, Tensor] = evaluation(self.model, texts, count=windows)
        self.original = {name: original_losses(self.model, w) for name, w in self.texts.items()}

    @property
    def data(self) -> dict[str, str]:
        """The sha256 of all tokens used."""
        calibrated = {f"calibration of {k}": v for k, v in self.calibration.digests.items()}
        return {**calibrated, **{f"evaluation of {k}": digest(w) for k, w in self.texts.items()}}

    def plan(self, recipe: Any, keep: float | None = None, **options: Any) -> Plan:
        """A plan on this calibration text."""
        return plan(self.model, recipe, keep=keep, **{"calibrate": self.calibration, **options})

    def ratio(self, made: Plan, callback: Callback | None = None) -> dict[str, float]:
        """Perplexity under a plan over the original's, by text; the model is as before afterwards."""
        with self.under(made, callback):
            return {name: self._ratio(name, w, callback) for name, w in self.texts.items()}

    @contextmanager
    def under(self, made: Plan, callback: Callback | None = None) -> Iterator[Any]:
        """The model with a plan carried out, for a while."""
        undo = apply_with_undo(self.model, made, callback=callback)
        try:
            yield self.model
        finally:
            undo()

    def _ratio(self, name: str, windows: Tensor, callback: Callback | None) -> float:
        return math.exp(float((losses(self.model, windows, callback=callback) - self.original[name]).mean()))


def mean(ratios: Mapping[str, float]) -> float:
    """Geometric mean over texts."""
    return math.exp(sum(math.log(r) for r in ratios.values()) / len(ratios))
