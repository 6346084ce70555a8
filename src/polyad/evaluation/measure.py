"""A user's own measure of a model: one number, or one an example, and its comparison with the original's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from polyad import _check
from polyad.evaluation.measure_files import code_file, function_in_file, place_of
from polyad.evaluation.records import MeasureRecord
from polyad.evaluation.student_t import quantile
from polyad.models.loading import origin


@dataclass(frozen=True)
class Measure:
    """A function of a model and its tokenizer, its name, and which way is better."""

    name: str
    function: Callable[[Any, Any], Any]
    larger: bool = True


@dataclass(frozen=True)
class MeasureResult:
    """The mean of a measure, beside the original's on the same examples.

    ``error`` is the standard error of ``value``, or of ``difference`` where there is an original, paired over
    examples; None where the measure gives one number alone. ``verdict`` is better, worse, or no clear difference.
    """

    name: str
    larger: bool
    value: float
    examples: int | None
    original: float | None = None
    difference: float | None = None
    error: float | None = None
    verdict: str | None = None

    def to_json(self) -> MeasureRecord:
        """Plain numbers."""
        return cast(MeasureRecord, asdict(self))


def read_measure(text: str, *, larger: bool = True) -> Measure:
    """The measure that ``FILE.py:function`` names; the file is run, as ``python FILE.py`` would."""
    return Measure(text.rpartition(":")[2], function_in_file(text), larger)


def as_measure(value: Measure | str | Callable[[Any, Any], Any], *, larger: bool = True) -> Measure:
    """A measure of a function, or of the text that names one."""
    if isinstance(value, Measure):
        return value
    if isinstance(value, str):
        return read_measure(value, larger=larger)
    if not callable(value):
        raise TypeError(
            f"measure is a {type(value).__name__}; give a function of (model, tokenizer), or 'FILE.py:function'"
        )
    return Measure(getattr(value, "__name__", "measure"), value, larger)


def measured_values(measure: Measure, model: Any) -> Tensor:
    """The measure of a model, float64: no dimension for one number, (examples,) for one an example."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            result = measure.function(model, origin(model).tokenizer)
    except Exception as error:  # it is the user's code
        raise ValueError(
            f"the measure {measure.name} stopped: {place_of(error, code_file(measure.function))}"
        ) from error
    finally:
        model.train(training)
    return _numbers(measure.name, result)


def _numbers(name: str, result: Any) -> Tensor:
    try:
        values = torch.as_tensor(result, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"the measure {name} gave a {type(result).__name__}; return one number, or a list of one an example"
        ) from None
    if values.ndim > 1 or not values.numel():
        raise ValueError(
            f"the measure {name} gave numbers of shape {tuple(values.shape)}; return one number, or a list of one an "
            "example"
        )
    return _check.finite(f"the result of the measure {name}", values)


def measure_alone(measure: Measure, values: Tensor) -> MeasureResult:
    """The result of a measure that is compared with nothing."""
    count = None if values.ndim == 0 else len(values)
    error = float(values.std()) / math.sqrt(len(values)) if values.ndim and len(values) > 1 else None
    return MeasureResult(measure.name, measure.larger, float(values.mean()), count, error=error)


def beside(measure: Measure, values: Tensor, original: Tensor) -> MeasureResult:
    """The result of a measure beside the original's; where both give one number an example, paired.

    >>> measure = Measure("accuracy", lambda model, tokenizer: 0)
    >>> worse = torch.tensor([0.0] * 50 + [1.0] * 50).double()
    >>> beside(measure, worse, torch.ones(100).double()).verdict
    'worse'
    """
    if values.shape != original.shape:
        raise ValueError(
            f"the measure {measure.name} gave {values.numel()} numbers for the model and {original.numel()} for the "
            "original; it must look at the same examples each time"
        )
    count = None if values.ndim == 0 else len(values)
    gap = values - original
    difference = float(gap.mean())
    error = float(gap.std()) / math.sqrt(len(gap)) if count is not None and count > 1 else None
    verdict = None if error is None else _verdict(difference, error, len(gap), larger=measure.larger)
    return MeasureResult(
        measure.name, measure.larger, float(values.mean()), count, float(original.mean()), difference, error, verdict
    )


Judge = Callable[[Any], MeasureResult]
"""The result of a measure for a model, beside an original that was measured before."""


def judge_beside(measure: Measure, original: Any) -> Judge:
    """Measure the original now, once, and give the function that measures others beside it."""
    theirs = measured_values(measure, original)
    return lambda model: beside(measure, measured_values(measure, model), theirs)


def _verdict(difference: float, error: float, count: int, *, larger: bool) -> str:
    if abs(difference) <= quantile(min(count - 1, 1000)) * error or difference == 0:
        return "no clear difference"
    return "better" if (difference > 0) == larger else "worse"
