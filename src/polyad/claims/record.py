"""A line of a claim: what a paper asserts, the figure measured here, and the verdict that follows from both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from polyad.evaluation.student_t import quantile

Relation = Literal["<=", ">="]
"""The relation that a figure should have to its bound."""

Verdict = Literal["holds", "fails", "no clear difference"]
"""A judgement on an assertion."""

VERDICTS: tuple[Verdict, ...] = ("holds", "fails", "no clear difference")
"""All verdicts."""

TOLERANCE = 0.01
"""The relative difference within which a re-run agrees, where a claim states no other."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One assertion as an inequality, with the figure measured here.

    A claim states ``assertion``, ``figure``, ``relation``, ``bound``, ``data`` and what it knows of the rest; what
    runs it adds ``handle``, ``commit`` (of the code that was measured), ``minutes`` and ``changed_since``.

    ``error`` is the standard error of the figure over paired seeds (over windows where there is one seed), 0 for an
    exact count and None where it is not known. ``seeds`` and ``windows`` count what the figure is a mean over.
    ``rival`` and ``control`` say what the method was compared with and what had to fail. ``data`` maps each text or
    data set to the sha256 of what was used of it. A re-run agrees where the figures differ by at most ``tolerance``
    times the larger of figure and bound. ``changed_since`` says whether the definitions of the claim or of its method
    have changed since it was measured; it does not touch the verdict.

    ``verdict`` follows: with an error, the bound must lie outside the 95 % interval of Student's t around the figure,
    or there is no clear difference; without one, or with an error of 0, figure and bound decide.

    >>> Line(assertion="A over B", figure=0.9, relation="<=", bound=1.0, error=0.02, seeds=3).verdict
    'holds'
    >>> Line(assertion="A over B", figure=0.9, relation="<=", bound=1.0, error=0.04, seeds=3).verdict
    'no clear difference'
    """

    handle: str = ""
    assertion: str
    figure: float
    error: float | None = None
    relation: Relation
    bound: float
    verdict: Verdict = field(init=False)
    seeds: int | None = None
    windows: int | None = None
    rival: str | None = None
    control: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    minutes: float | None = None
    tolerance: float = TOLERANCE
    changed_since: bool = False

    def __post_init__(self) -> None:
        _refuse_wrong(self)
        object.__setattr__(self, "verdict", self._judge())

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the figure; None where its error is not known."""
        if self.error is None:
            return None
        half = self.error * quantile(self._repeats - 1) if self.error else 0.0
        return self.figure - half, self.figure + half

    @property
    def state(self) -> str:
        """The verdict, and whether the code has changed since."""
        return f"{self.verdict} (code changed since)" if self.changed_since else self.verdict

    def agrees(self, figure: float) -> bool:
        """Tell whether another run's figure is this one within the tolerance.

        >>> Line(assertion="operations saved", figure=689.5, relation=">=", bound=100, tolerance=0.0).agrees(689.0)
        False
        """
        if self.figure == figure or (math.isnan(self.figure) and math.isnan(figure)):
            return True
        reach = self.tolerance * max(abs(self.figure), abs(self.bound))
        return math.isfinite(reach) and abs(self.figure - figure) <= reach

    @property
    def _repeats(self) -> int:
        """The number of seeds, or of windows where there is one seed, that the error is over."""
        return self.seeds if self.seeds is not None and self.seeds > 1 else self.windows or self.seeds or 1

    def _judge(self) -> Verdict:
        low, high = self.interval or (self.figure, self.figure)
        if low < high and low <= self.bound <= high:
            return "no clear difference"
        true = self.figure <= self.bound if self.relation == "<=" else self.figure >= self.bound
        return "holds" if true else "fails"


@dataclass(frozen=True)
class Outcome:
    """The lines of a claim, and further figures that help to read them."""

    lines: Sequence[Line]
    details: Mapping[str, Any] = field(default_factory=dict)


class Result(Outcome):
    """An outcome of one line without error, rival or control, as claims stated them before ``Line``.

    What it leaves open (``error``, ``seeds``, ``windows``, ``rival``, ``control``, ``tolerance``) is taken from the
    stored result. New claims give an ``Outcome``.
    """

    def __init__(
        self, statement: str, measured: float, relation: Relation, bound: float, data: Mapping[str, str],
        seed: int,  # noqa: ARG002 - the script holds it
        details: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        line = Line(assertion=statement, figure=measured, relation=relation, bound=bound, data=data)
        super().__init__((line,), details or {})


class MeanAndError(TypedDict):
    """The two fields of a line that follow from values measured seed by seed or window by window."""

    figure: float
    error: float


def mean_and_error(values: Sequence[float]) -> MeanAndError:
    """The figure and the standard error of values that were measured seed by seed or window by window.

    Give differences or ratios of pairs that share a seed: ``Line(**mean_and_error(gains), seeds=len(gains), …)``.

    >>> mean_and_error([1.0, 2.0, 3.0])
    {'figure': 2.0, 'error': 0.5773502691896257}
    """
    count = len(values)
    if count < 2:
        raise ValueError(f"values has {count} of them; an error takes at least two seeds or windows")
    mean = sum(values) / count
    return {"figure": mean, "error": math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1) / count)}


def _refuse_wrong(line: Line) -> None:
    """Raise for a line whose fields cannot be meant."""
    for name in ("figure", "bound", "tolerance", "error"):
        value = getattr(line, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float | None)
            or (value is None and name != "error")
        ):
            raise TypeError(f"{name}={value!r} is not a number")
    if line.relation not in ("<=", ">="):
        raise ValueError(f"relation={line.relation!r} is not a relation; write '<=' or '>='")
    for name in ("error", "tolerance"):
        if not (getattr(line, name) or 0.0) >= 0.0:
            raise ValueError(f"{name}={getattr(line, name)!r} is not a size; give a number that is at least 0")
    for name in ("seeds", "windows"):
        value = getattr(line, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}={value!r} is not a count; give a whole number from 1, or None")
    if line.error and line._repeats < 2:
        raise ValueError(
            f"error={line.error!r} is over {line._repeats} seed or window; say in seeds or windows how many there "
            "were, or give None where the error is not known"
        )


__all__ = [
    "TOLERANCE",
    "VERDICTS",
    "Line",
    "MeanAndError",
    "Outcome",
    "Relation",
    "Result",
    "Verdict",
    "mean_and_error",
]
