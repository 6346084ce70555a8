"""The largest absolute value of each column of a layer's input."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.models.calibration.statistic import Statistic


class Peak(Statistic):
    """max |x|, (in,)."""

    name = "peak"

    @staticmethod
    def update(total: Tensor | None, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG004 - reads the input alone
        peak = x.abs().amax(0)
        return peak if total is None else torch.maximum(total, peak)

    @staticmethod
    def finish(total: Tensor, count: int) -> Tensor:  # noqa: ARG004 - a maximum is no mean
        return total

    @staticmethod
    def join(first: Tensor, second: Tensor, share: float) -> Tensor:  # noqa: ARG004 - a maximum is no mean
        return torch.maximum(first, second)
