"""SmolLM2, the texts and the protocol of claims on caches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from polyad._callback import Callback
from polyad.cache import cache_for, observe
from polyad.cache.codec import Make
from polyad.data import Calibration, calibration, digest, evaluation
from polyad.evaluation.caches import cache_quality
from polyad.models import load

TEXTS = ("stdlib", "sotu")
Seen = list[dict[str, Tensor]]


class Caches:
    """SmolLM2-135M in float32: a prefix is compressed once, and the ``scored`` tokens after it are read in one call.

    ``windows`` are those of each text, ``calibrate`` those of both together, of 512 tokens each. ``window`` tokens at
    the end of a cache are exact, in float32.
    """

    def __init__(
        self, *, prefix: int = 1024, scored: int = 127, window: int = 32, windows: int = 4, calibrate: int = 16
    ) -> None:
        self.prefix, self.scored, self.window, self.calibrate = prefix, scored, window, calibrate
        self.model: Any = load("smollm2", dtype=torch.float32)
        self.texts: Mapping[str, Tensor] = evaluation(self.model, TEXTS, count=windows, length=prefix + scored)

    @cached_property
    def calibration(self) -> Calibration:
        """Made when a codec asks for it."""
        return calibration(self.model, TEXTS, count=self.calibrate, length=512)

    @property
    def data(self) -> dict[str, str]:
        """The sha256 of all tokens used."""
        used = self.calibration.digests if "calibration" in vars(self) else {}
        calibrated = {f"calibration of {k}": v for k, v in used.items()}
        return {**calibrated, **{f"evaluation of {k}": digest(w) for k, w in self.texts.items()}}

    def observe(self, make: Make, callback: Callback | None = None) -> Seen:
        """Collect from the calibration text the numbers that a codec needs."""
        return observe(self.model, make, self.calibration.windows, callback=callback)

    def compare(
        self, makes: Mapping[str, Make | tuple[Make, Seen]], callback: Callback | None = None
    ) -> dict[str, dict[str, float]]:
        """For each codec the ratio of perplexities by text and their geometric mean; and bytes.

        They are those of a token of the prefix, and as many times fewer as an exact cache's in bfloat16, all counted.
        """
        built = {}
        for name, entry in makes.items():
            make, statistics = entry if isinstance(entry, tuple) else (entry, None)
            built[name] = partial(cache_for, self.model, make, window=self.window, seen=statistics)
        by_codec: dict[str, dict[str, float]] = {name: {} for name in makes}
        how: dict[str, Any] = {"scored": self.scored, "at_once": self.scored, "callback": callback}
        for text, windows in self.texts.items():
            for name, quality in cache_quality(self.model, built, windows, **how).items():
                by_codec[name][text] = quality.ratio
                by_codec[name]["bytes a token"] = quality.nbytes / self.prefix
                by_codec[name]["times smaller"] = quality.ratio_of_bytes
        for figures in by_codec.values():
            figures["mean"] = math.exp(sum(math.log(figures[text]) for text in self.texts) / len(self.texts))
        return by_codec
