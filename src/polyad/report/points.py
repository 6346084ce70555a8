"""Access to the record of one result: names, sizes, qualities, speeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from polyad._versions import read_version
from polyad.evaluation.records import CompressionRecord, ModelRecord, Point, is_measured
from polyad.evaluation.trial_records import AdapterRecord, CacheRecord, FailedAdapter
from polyad.report.words import is_number, ratio

SIZES = {
    "bytes": ("bytes", "total"),
    "parameters": ("parameters", "total"),
    "operations": ("operations_per_token",),
    "decode": ("decode_tokens_per_second",),
}
"""The keys under which a size stands in the record of a model, by the name of its axis."""


def check_records(records: Sequence[Point]) -> None:
    """Refuse all but a list of records, naming the first entry that is not one."""
    if not isinstance(records, list) or not records:
        raise ValueError(
            f"records={records!r:.60} is not a list that holds a record; give a list with what "
            "polyad compress --json prints, or the list of polyad compare --json"
        )
    for number, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise TypeError(f"records[{number}] is {type(record).__name__}; a dict is needed, as --json prints it")
    check_versions(records)
    for number, record in enumerate(records):
        missing = [key for key in ("original", "compressed", "plan") if not isinstance(record.get(key), Mapping)]
        if missing and is_measured(record):
            raise ValueError(
                f"records[{number}] lacks {' and '.join(missing)} and has no error; give what polyad compress --json "
                "or polyad compare --json printed"
            )


def check_versions(records: Sequence[Point | CacheRecord | AdapterRecord | FailedAdapter]) -> None:
    """Refuse records that a newer polyad printed, naming the first."""
    for number, record in enumerate(records):
        read_version("record", f"records[{number}]", record.get("version"))


def label(record: Point) -> str:
    """The name of a point: its method and the share to keep, as they were given."""
    plan = record.get("plan") or {}
    name = record.get("method") or " + ".join(str(step["method"]) for step in plan.get("recipe", ()))
    keep = record.get("keep", plan.get("keep"))
    return f"{name or 'result'}, keep {keep:g}" if is_number(keep) else str(name or "result")


def method_name(record: Point) -> str:
    """The method of a point without its budget, by which points are grouped."""
    return str(record.get("method") or label(record).rsplit(", keep ", 1)[0])


def texts(records: Sequence[Point]) -> list[str]:
    """Names of the texts that perplexity was measured on, in order."""
    names = [name for r in records if is_measured(r) for name in r["compressed"].get("perplexity") or {}]
    return list(dict.fromkeys(names))


def quality(record: CompressionRecord, text: str) -> tuple[float | None, float | None]:
    """(perplexity over the original's, its standard error) on one text; None where it was not measured."""
    after, before = record["compressed"], record["original"]
    detail = ((after.get("details") or {}).get("perplexity") or {}).get(text) or {}
    value = detail.get("ratio")
    if not is_number(value):
        value = ratio((after.get("perplexity") or {}).get(text), (before.get("perplexity") or {}).get(text))
    error = detail.get("error")
    return value if is_number(value) and value > 0 else None, error if is_number(error) else None


def mean_quality(record: CompressionRecord) -> tuple[float | None, float | None]:
    """(geometric mean of the ratios over texts, its standard error, the texts taken as independent)."""
    pairs = [quality(record, text) for text in texts([record])]
    values = [value for value, _ in pairs if value is not None]
    if not values or len(values) < len(pairs):
        return None, None
    mean = math.exp(sum(map(math.log, values)) / len(values))
    shares = [error / value for value, error in pairs if value is not None and error is not None]
    if len(shares) < len(pairs):
        return mean, None
    return mean, mean * math.sqrt(sum(share**2 for share in shares)) / len(shares)


def measured_size(measured: ModelRecord, axis: str) -> Any:
    """A size of one model, by the name of its axis."""
    part: Any = measured
    for key in SIZES[axis]:
        part = (part or {}).get(key)
    return part


def rate(measured: ModelRecord, stage: str) -> tuple[Any, Any, Any]:
    """Tokens a second of ``prefill`` or ``decode``: (median, first quartile, third quartile)."""
    detail = ((measured.get("details") or {}).get("speed") or {}).get(stage) or {}
    return measured.get(f"{stage}_tokens_per_second"), detail.get("low"), detail.get("high")


def speeds_differ(record: CompressionRecord, stage: str) -> bool | None:
    """True where the quartiles of the two models' rates do not overlap; None where they are not known."""
    _, low, high = rate(record["compressed"], stage)
    _, below, above = rate(record["original"], stage)
    if not all(is_number(v) for v in (low, high, below, above)):
        return None
    return low > above or high < below
