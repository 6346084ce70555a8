"""The mean of a layer's input."""

from __future__ import annotations

from torch import Tensor

from polyad.models.calibration.statistic import Statistic


class Mean(Statistic):
    """E[x], (in,)."""

    name = "mean"

    @staticmethod
    def update(total: Tensor | None, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG004 - reads the input alone
        return x.sum(0) if total is None else total + x.sum(0)
