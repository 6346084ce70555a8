"""The records of caches and of trained adapters, plain mappings as those of compressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, TypeGuard

from polyad.evaluation.records import MeasureRecord
from polyad.evaluation.sample_record import Sample


class CacheQualityRecord(TypedDict):
    """Perplexity beside the exact cache's, with its standard error."""

    ratio: float
    error: float | None


class CacheRecord(TypedDict):
    """One way of storing keys and values: one result of ``polyad cache``."""

    version: int
    method: str
    context: int
    bytes_per_token: float
    perplexity: Mapping[str, CacheQualityRecord]
    shared_bytes: int
    times_smaller: float
    decode_seconds: float | None
    transformers_decode_seconds: float | None
    command: str


class HeldOut(TypedDict):
    """The loss of one text's held-out windows before and after training, in nats a token."""

    before: float
    after: float
    windows: int
    sha256: str


class TrainingRecord(TypedDict):
    """One training of an adapter: its settings, its costs and its losses."""

    version: int
    method: str
    arguments: Mapping[str, Any]
    layers: int
    trained_parameters: int
    bytes: int
    learning_rate: float
    rates_tried: Mapping[str, Any] | None
    steps: int
    batch: int
    length: int
    seed: int
    loss_curve: list[float]
    held_out: Mapping[str, HeldOut]
    seconds: dict[str, float]
    peak_memory_bytes: int | None
    dtype: str
    device: str
    threads: int


class AdapterRecord(TrainingRecord):
    """One result of ``polyad adapt``, or one of the methods that it compares; ``spelled`` is the method as given."""

    spelled: str
    lora_parameters: NotRequired[int]
    asked: NotRequired[Mapping[str, Any]]
    model: NotRequired[str]
    command: NotRequired[str]
    error: NotRequired[None]
    measure: NotRequired[MeasureRecord]
    samples: NotRequired[Sequence[Sample]]


class FailedAdapter(TypedDict):
    """A method of a comparison that failed, with its reason."""

    version: int
    spelled: str
    error: str
    command: NotRequired[str]


def is_trained(record: AdapterRecord | FailedAdapter) -> TypeGuard[AdapterRecord]:
    """True for what was trained, False for a method that failed."""
    return failed_trial(record) is None


def failed_trial(record: AdapterRecord | FailedAdapter) -> str | None:
    """The reason why a method failed, or None."""
    return record.get("error")
