"""The mean square of each column of a layer's output."""

from __future__ import annotations

from torch import Tensor

from polyad.models.calibration.statistic import Statistic


class OutputSquare(Statistic):
    """E[y²], (out,)."""

    name = "output_square"
    reads = "output"

    @staticmethod
    def update(total: Tensor | None, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG004 - reads the output alone
        squares = y.square().sum(0)
        return squares if total is None else total + squares
