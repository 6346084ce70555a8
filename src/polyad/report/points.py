"""What a record says of one result, found in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from polyad._versions import read_version
from polyad.report.words import known, ratio

Record = Mapping[str, Any]
SIZES = {
    "bytes": ("bytes", "total"),
    "parameters": ("parameters", "total"),
    "operations": ("operations_per_token",),
    "decode": ("decode_tokens_per_second",),
}
"""Where a size stands in what was measured of a model, by the name of its axis."""


def check_records(records: Sequence[Record]) -> None:
    """Refuse what is no list of records, naming the first that is none."""
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
        if missing and not failed(record):
            raise ValueError(
                f"records[{number}] lacks {' and '.join(missing)} and has no error; give what polyad compress --json "
                "or polyad compare --json printed"
            )


def check_versions(records: Sequence[Record]) -> None:
    """Refuse records that a newer polyad printed, naming the first."""
    for number, record in enumerate(records):
        read_version("record", f"records[{number}]", record.get("version"))


def failed(record: Record) -> bool:
    """Whether this point failed."""
    return record.get("error") is not None


def label(record: Record) -> str:
    """A name for a point: its method and what it keeps, as they were asked for."""
    plan = record.get("plan") or {}
    method = record.get("method") or " + ".join(str(step["method"]) for step in plan.get("recipe", ()))
    keep = record.get("keep", plan.get("keep"))
    return f"{method or 'result'}, keep {keep:g}" if known(keep) else str(method or "result")


def method(record: Record) -> str:
    """What points that differ only in budget have in common."""
    return str(record.get("method") or label(record).rsplit(", keep ", 1)[0])


def texts(records: Sequence[Record]) -> list[str]:
    """Names of the texts that perplexity was measured on, in order."""
    found = [name for r in records if not failed(r) for name in r["compressed"].get("perplexity") or {}]
    return list(dict.fromkeys(found))


def quality(record: Record, text: str) -> tuple[float | None, float | None]:
    """(perplexity over the original's, its standard error) on one text; None where it was not measured."""
    after, before = record["compressed"], record["original"]
    detail = ((after.get("details") or {}).get("perplexity") or {}).get(text) or {}
    found = detail.get("ratio")
    if not known(found):
        found = ratio((after.get("perplexity") or {}).get(text), (before.get("perplexity") or {}).get(text))
    error = detail.get("error")
    return found if known(found) and found > 0 else None, error if known(error) else None


def mean_quality(record: Record) -> tuple[float | None, float | None]:
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


def size(measured: Mapping[str, Any], axis: str) -> Any:
    """A size of what was measured of one model, by the name of its axis."""
    found: Any = measured
    for key in SIZES[axis]:
        found = (found or {}).get(key)
    return found


def rate(measured: Mapping[str, Any], stage: str) -> tuple[Any, Any, Any]:
    """Tokens a second of ``prefill`` or ``decode``: (median, first quartile, third quartile)."""
    detail = ((measured.get("details") or {}).get("speed") or {}).get(stage) or {}
    return measured.get(f"{stage}_tokens_per_second"), detail.get("low"), detail.get("high")


def apart(record: Record, stage: str) -> bool | None:
    """Whether the quartiles of the two models' rates do not overlap; None where they are not known."""
    _, low, high = rate(record["compressed"], stage)
    _, below, above = rate(record["original"], stage)
    if not all(known(v) for v in (low, high, below, above)):
        return None
    return low > above or high < below
