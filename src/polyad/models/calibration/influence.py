"""The angle by which a layer turns what it is given."""

from __future__ import annotations

from torch import Tensor, nn

from polyad.models.calibration.statistic import Statistic


class Influence(Statistic):
    """1 - E[cos(x, y)], a number, of layers whose output is as wide as their input."""

    name = "influence"
    reads = "both"

    @staticmethod
    def update(total: Tensor | None, x: Tensor, y: Tensor) -> Tensor:
        turned = (1 - nn.functional.cosine_similarity(x, y, dim=-1)).sum()
        return turned if total is None else total + turned
