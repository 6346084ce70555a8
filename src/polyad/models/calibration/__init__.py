"""Statistics of a model's layers, collected from calibration data: one statistic a file."""

from polyad.models.calibration import influence, mean, output_square, peak, second
from polyad.models.calibration.collect import collect, join_statistics
from polyad.models.calibration.statistic import STATISTICS, Statistic

__all__ = [
    "STATISTICS", "Statistic", "collect", "influence", "join_statistics", "mean", "output_square", "peak", "second",
]  # fmt: skip
