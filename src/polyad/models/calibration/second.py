"""The second moment of a layer's input."""

from __future__ import annotations

from torch import Tensor

from polyad.models.calibration.statistic import Statistic


class Second(Statistic):
    """E[x xᵀ], (in, in). Cost: 2 in² operations a row."""

    name = "second"

    @staticmethod
    def update(total: Tensor | None, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG004 - reads the input alone
        return x.mT @ x if total is None else total.addmm_(x.mT, x)

    @staticmethod
    def numbers(width: int) -> int:
        return width * width

    @staticmethod
    def finish(total: Tensor, count: int) -> Tensor:
        return total.div_(count)  # in place: it is the largest of all
