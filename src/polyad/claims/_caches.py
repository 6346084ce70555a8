"""What compressed caches cost on two texts, for the claims of their papers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from polyad.cache import cache_for
from polyad.cache.codec import Make
from polyad.data import digest, evaluation
from polyad.evaluation.caches import cache_quality
from polyad.models import load

TEXTS = ("stdlib", "sotu")
SCORED, WINDOW = 64, 64


class Caches:
    """SmolLM2-135M in float32 on ``windows`` windows of 1,024 tokens of each text: a prefix, then 64 tokens
    scored at once.

    The last 64 tokens of every cache are exact.
    """

    def __init__(self, *, windows: int = 2) -> None:
        self.model: Any = load("smollm2", dtype=torch.float32)
        self.texts = evaluation(self.model, TEXTS, count=windows)

    @property
    def data(self) -> dict[str, str]:
        """The sha256 of all tokens used."""
        return {f"evaluation of {name}": digest(w) for name, w in self.texts.items()}

    def measure(self, makes: Mapping[str, Make], callback: Any = None) -> tuple[dict[str, float], dict[str, Any]]:
        """The logarithm of each cache's perplexity ratio to the exact one, averaged over texts; and details.

        The ratio of bytes is that to an exact cache in bfloat16, all that a cache holds counted, its exact tokens
        too, in float32 here.
        """
        rules = {name: partial(cache_for, self.model, make, window=WINDOW) for name, make in makes.items()}
        found = {
            text: cache_quality(self.model, rules, w, scored=SCORED, at_once=SCORED, callback=callback)
            for text, w in self.texts.items()
        }
        logs = {name: sum(math.log(of[name].ratio) for of in found.values()) / len(found) for name in makes}
        first = next(iter(found.values()))
        return logs, {
            "perplexity ratio": {name: {text: of[name].ratio for text, of in found.items()} for name in makes},
            "times smaller": {name: first[name].ratio_of_bytes for name in makes},
            "bytes of a sequence": {name: first[name].nbytes for name in makes},
        }
