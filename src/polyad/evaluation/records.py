"""The record of a compression: a plain mapping that commands print, files keep and reports draw.

What was not measured is None or left out, as are the keys that came after the version that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, Required, TypedDict, TypeGuard

from polyad.evaluation.sample_record import Sample


class SelectedAndTotal(TypedDict):
    """A quantity of the selected modules and of the whole model."""

    selected: int
    total: int


class TextQuality(TypedDict, total=False):
    """Perplexity on one text, its ratio to the original's, and the paired standard error of that ratio."""

    perplexity: float
    windows: int
    sha256: str
    original: float | None
    ratio: float | None
    error: float | None


class RateRecord(TypedDict):
    """Median tokens a second with the quartiles, and every sample's seconds."""

    median: float
    low: float
    high: float
    seconds: NotRequired[Sequence[float]]


class SpeedRecord(TypedDict, total=False):
    """Rates of reading a prompt and of decoding, with what they hold for."""

    prefill: RateRecord
    decode: RateRecord
    threads: int
    dtype: str
    cache: str


class Details(TypedDict, total=False):
    """The sources of a model's figures: quality by text, speed by stage."""

    perplexity: Mapping[str, TextQuality]
    speed: SpeedRecord


class ModelRecord(TypedDict, total=False):
    """The figures of one model: what ``Measured.to_json`` gives, and the bytes of its files."""

    perplexity: Required[Mapping[str, float]]
    parameters: Required[SelectedAndTotal]
    bytes: Required[SelectedAndTotal]
    operations_per_token: Required[int]
    prefill_tokens_per_second: Required[float | None]
    decode_tokens_per_second: Required[float | None]
    peak_memory_bytes: Required[int | None]
    details: Details
    file_bytes: int


class AgreementRecord(TypedDict):
    """Mean KL divergence from the original, in nats, and the share of equal top tokens."""

    kl: float
    top1: float


class LayerRecord(TypedDict, total=False):
    """One selected module: its format, its numbers now and before (``whole``), its relative time by rows."""

    path: Required[str]
    shape: Required[Sequence[int]]
    kind: Required[str]
    parameters: int
    whole: int
    time: Required[Mapping[str, float] | None]


class CurveRecord(TypedDict):
    """The choices for one item: sizes, their costs and their errors, smallest first."""

    sizes: Sequence[int]
    costs: Sequence[float]
    errors: Sequence[float]


class PlanRecord(TypedDict, total=False):
    """The decisions of a plan with what led to them, as ``Plan.to_json`` gives them."""

    recipe: Sequence[Mapping[str, Any]]
    keep: float | None
    budget: str
    seed: int
    calibration: Mapping[str, str]
    sizes: Sequence[Mapping[str, int]]
    importance: Mapping[str, float]
    curves: Mapping[str, CurveRecord]
    seconds: Mapping[str, float]
    left: Mapping[str, str]
    coverage: str


class MeasureRecord(TypedDict):
    """The result of a user's own measure, as ``MeasureResult`` describes it."""

    name: str
    larger: bool
    value: float
    examples: int | None
    original: float | None
    difference: float | None
    error: float | None
    verdict: str | None


class PerplexityRecord(TypedDict):
    """The perplexity on one text, as ``Perplexity`` describes it."""

    perplexity: float
    windows: int
    sha256: str
    original: float | None
    ratio: float | None
    error: float | None


class EvaluationRecord(TypedDict):
    """One result of ``polyad evaluate``."""

    perplexity: Mapping[str, PerplexityRecord]
    agreement: AgreementRecord | None
    measure: MeasureRecord | None
    protocol: str


class CompressionRecord(TypedDict):
    """One result of ``polyad compress``, or one point of ``polyad compare``.

    ``ratio`` is the geometric mean of the perplexity ratios; ``pareto`` is true where no other point beats it in
    both ``ratio`` (or ``measure``, the user's own, where there is one) and bytes. ``error`` is None in a comparison
    and absent elsewhere.
    """

    version: int
    title: str
    original: ModelRecord
    compressed: ModelRecord
    agreement: AgreementRecord
    plan: PlanRecord
    layers: Sequence[LayerRecord]
    seed: int
    store: str
    versions: Mapping[str, str]
    model: NotRequired[str]
    base: NotRequired[Mapping[str, Any]]
    folder: NotRequired[str]
    seconds: NotRequired[dict[str, float]]
    command: NotRequired[str | None]
    method: NotRequired[str]
    keep: NotRequired[float | None]
    error: NotRequired[str | None]
    measure: NotRequired[MeasureRecord]
    samples: NotRequired[Sequence[Sample]]
    ratio: NotRequired[float]
    pareto: NotRequired[bool]


class FailedPoint(TypedDict):
    """A point of a comparison that failed, with its reason and the line that raised it."""

    version: int
    method: str
    keep: float | None
    error: str
    where: str
    command: NotRequired[str | None]


Point = CompressionRecord | FailedPoint


def is_measured(record: Point) -> TypeGuard[CompressionRecord]:
    """True for what was measured, False for a point that failed."""
    return failure(record) is None


def failure(record: Point) -> str | None:
    """The reason why a point failed, or None."""
    return record.get("error")
