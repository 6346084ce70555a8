"""SmolLM2 fine-tuned by two adapters: rates tuned alike at one seed, losses compared at others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from polyad._callback import Callback
from polyad.adapters import Adapters
from polyad.adapters.training.finetune import NAME, finetune
from polyad.adapters.training.settings import Finetuning
from polyad.claims._kept_search import search_once
from polyad.claims.record import Line, Outcome, mean_and_error
from polyad.models import load

TUNING_SEED = 0


@dataclass(frozen=True)
class Contestant:
    """An adapter as ``Adapters.attach`` takes it, and the learning rates that it may choose from."""

    name: str
    method: Any
    rates: Sequence[float]


class Duel:
    """Two contestants on equal layers, tokens and steps; the rate is that of the least loss at seed 0."""

    def __init__(
        self, handle: str, settings: Finetuning, seeds: Sequence[int], callback: Callback | None = None
    ) -> None:
        self.handle = handle
        self.model: Any = load("smollm2", dtype=torch.float32)
        self.settings, self.seeds, self.callback = settings, seeds, callback
        self.details: dict[str, Any] = {}
        self.data: dict[str, str] = {}

    def outcome(self, one: Contestant, other: Contestant, assertion: str) -> Outcome:
        """The held-out loss of ``one`` less that of its rival, nats a token, for every seed but the tuning's."""
        by_name = {contestant.name: self._losses(contestant) for contestant in (one, other)}
        gains = [a - b for a, b in zip(by_name[one.name], by_name[other.name], strict=True)]
        line = Line(
            assertion=assertion,
            **mean_and_error(gains),
            relation="<=",
            bound=0.0,
            seeds=len(gains),
            data=self.data,
            rival=f"{other.name}, its rate chosen among as many at the same seed",
            control="the model without an adapter, whose loss is in the details",
            tolerance=0.5,
        )
        return Outcome([line], self.details)

    def _losses(self, contestant: Contestant) -> list[float]:
        key, rates = f"losses of {contestant.name} by rate, when tuned", [f"{rate:g}" for rate in contestant.rates]
        tuned = search_once(self.handle, key, rates, lambda rate: self._loss(contestant, float(rate), TUNING_SEED))
        best = float(min(rates, key=lambda rate: tuned[rate]))
        losses = [self._loss(contestant, best, seed) for seed in self.seeds]
        self.details[key] = tuned
        self.details[f"losses of {contestant.name}"] = losses
        return losses

    def _loss(self, contestant: Contestant, rate: float, seed: int) -> float:
        """The mean held-out loss over texts after training; the model is as before afterwards."""
        asked = replace(self.settings, rate=rate, seed=seed)
        try:
            _, record = finetune(self.model, contestant.method, asked, callback=self.callback)
        finally:
            adapters = Adapters(self.model)
            if NAME in adapters.names:
                adapters.detach(NAME)
        self.details[f"trained numbers of {contestant.name}"] = record["trained_parameters"]
        held_out = record["held_out"].values()
        self.data |= {f"held-out {text}": one["sha256"] for text, one in record["held_out"].items()}
        self.details["loss without an adapter"] = sum(one["before"] for one in held_out) / len(held_out)
        return sum(one["after"] for one in held_out) / len(held_out)
