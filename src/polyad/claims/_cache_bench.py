"""The model, the texts and the protocol of claims on caches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from polyad.cache import cache_for, observe
from polyad.cache.codec import Make
from polyad.data import calibration, digest, evaluation
from polyad.evaluation.caches import cache_quality
from polyad.models import load

TEXTS = ("stdlib", "sotu")
PREFIX = 1024


class CacheBench:
    """SmolLM2-135M in float32; a 1,024-token prefix is compressed once and the next ``scored`` tokens are read
    in one call."""

    def __init__(self, *, calibrate: int = 16, windows: int = 4, scored: int = 127) -> None:
        self.model: Any = load("smollm2", dtype=torch.float32)
        self.scored = scored
        self.calibration = calibration(self.model, TEXTS, count=calibrate, length=512)
        self.texts: Mapping[str, Tensor] = evaluation(self.model, TEXTS, count=windows, length=PREFIX + scored)

    @property
    def data(self) -> dict[str, str]:
        """The sha256 of all tokens used."""
        calibrated = {f"calibration of {k}": v for k, v in self.calibration.digests.items()}
        return {**calibrated, **{f"evaluation of {k}": digest(w) for k, w in self.texts.items()}}

    def observe(self, make: Make, callback: Callable[..., Any] | None = None) -> list[dict[str, Tensor]]:
        """What the codec needs to know, from the calibration text."""
        return observe(self.model, make, self.calibration.windows, callback=callback)

    def compare(
        self,
        makes: Mapping[str, tuple[Make, list[dict[str, Tensor]] | None]],
        callback: Callable[..., Any] | None = None,
        *,
        window: int = 32,
    ) -> dict[str, dict[str, float]]:
        """For each codec the ratio of perplexities by text, their geometric mean, and bytes a token of the prefix."""
        built = {
            name: partial(cache_for, self.model, make, window=window, seen=seen)
            for name, (make, seen) in makes.items()
        }
        found: dict[str, dict[str, float]] = {name: {} for name in makes}
        for text, windows in self.texts.items():
            qualities = cache_quality(
                self.model, built, windows, scored=self.scored, at_once=self.scored, callback=callback
            )
            for name, quality in qualities.items():
                found[name][text] = quality.ratio
                found[name]["bytes a token"] = quality.nbytes / PREFIX
        for figures in found.values():
            figures["mean"] = math.exp(sum(math.log(figures[text]) for text in self.texts) / len(self.texts))
        return found
