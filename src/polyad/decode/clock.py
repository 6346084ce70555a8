"""Times of a run of decoding."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor


class Clock:
    """Notes the time at which each token was there; also a stopping criterion of transformers, which never stops."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._times: list[float] = []

    def start(self) -> None:
        """Begin the prefill."""
        self._times = [self._now()]

    def tick(self) -> None:
        """Note that the next token is there."""
        self._times.append(self._now())

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:  # noqa: ARG002
        self.tick()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    @property
    def seconds(self) -> float:
        return self._times[-1] - self._times[0]

    @property
    def prefill_seconds(self) -> float:
        return max(self._times[1] - self._times[0], 1e-9)

    @property
    def milliseconds_per_token(self) -> float | None:
        """The median of all tokens but the first."""
        steps = [after - before for before, after in zip(self._times[1:], self._times[2:], strict=False)]
        return 1000 * statistics.median(steps) if steps else None

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
