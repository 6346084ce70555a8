"""Quality, size, speed and memory, as the measuring protocol has them."""

from polyad.evaluation.evaluate import Evaluation, Measured, evaluate, measured_pair
from polyad.evaluation.measure import Measure, MeasureResult, read_measure
from polyad.evaluation.quality import Agreement, Perplexity
from polyad.evaluation.size import Share, nbytes, operations_per_token, parameters
from polyad.evaluation.speed import Rate, Speed, speeds

__all__ = [
    "Agreement", "Evaluation", "Measure", "MeasureResult", "Measured", "Perplexity", "Rate", "Share", "Speed",
    "evaluate", "measured_pair", "nbytes", "operations_per_token", "parameters", "read_measure", "speeds",
]  # fmt: skip
