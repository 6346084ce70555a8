"""Pages of the results of ``polyad cache`` and ``polyad adapt --compare``, from the records that they print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyad.evaluation.trial_records import AdapterRecord, CacheRecord, FailedAdapter, failed_trial, is_trained
from polyad.report.points import check_versions
from polyad.report.study import Quantity, Study, StudyTrial
from polyad.report.words import figure, is_number, short


def cache_study(records: Sequence[CacheRecord], best: str | None, facts: Mapping[str, Any]) -> Study:
    """Caches by bytes a token, perplexity and time of a token. ``best`` is the one that was recommended, if any.

    >>> one = {
    ...     "method": "plain",
    ...     "context": 8,
    ...     "bytes_per_token": 4.0,
    ...     "perplexity": {"a": {"ratio": 1.0, "error": 0.0}},
    ... }
    >>> cache_study([one], None, {}).sentence
    'Smallest of 1 is plain: 4 B a token, +0.00 % perplexity.'
    """
    check_versions(records)
    names = list(records[0]["perplexity"])
    quantities = {
        "bytes": Quantity("bytes a token", "B"),
        "smaller": Quantity("smaller than bfloat16", "times", more=True),
        **{
            f"text{i}": Quantity(f"perplexity on {name}, above the exact cache's", "%")
            for i, name in enumerate(names)
        },
        "time": Quantity("time of a token", "times transformers'"),
        "shared": Quantity("held once for all", "B"),
    }
    trials = [_cache(record, names) for record in records]
    context = records[0]["context"]
    small = min(records, key=lambda r: r["bytes_per_token"])
    sentence = f"Smallest of {len(records)} is {_summary(small)}."
    others = [r for r in records if small["bytes_per_token"] < r["bytes_per_token"] < _largest(records)]
    if others:
        sentence += f" Of those between it and the largest, least is lost by {_summary(min(others, key=_worst))}."
    if best is not None:
        sentence += f" For the bytes that were asked for, {best} is recommended."
    command = str(records[0].get("command", "not recorded"))
    return Study(f"Caches after {context:,} tokens", sentence, command, quantities, trials, "bytes", "text0", facts)


def _cache(record: CacheRecord, names: Sequence[str]) -> StudyTrial:
    mine, theirs = record.get("decode_seconds"), record.get("transformers_decode_seconds")
    values = {
        "bytes": record["bytes_per_token"],
        "smaller": record.get("times_smaller"),
        "time": mine / theirs if is_number(mine) and is_number(theirs) else None,
        "shared": record.get("shared_bytes"),
        **{f"text{i}": 100 * (record["perplexity"][name]["ratio"] - 1) for i, name in enumerate(names)},
    }
    measured = {f"text{i}": record["perplexity"][name]["error"] for i, name in enumerate(names)}
    errors = {name: 100 * error for name, error in measured.items() if error}  # one window has none
    return StudyTrial(record["method"], values, errors)


def _summary(record: CacheRecord) -> str:
    size = short(record["bytes_per_token"], "B")
    return f"{record['method']}: {size} a token, {100 * (_worst(record) - 1):+.2f} % perplexity"


def _largest(records: Sequence[CacheRecord]) -> float:
    return max(record["bytes_per_token"] for record in records)


def _worst(record: CacheRecord) -> float:
    return max(quality["ratio"] for quality in record["perplexity"].values())


def adapter_study(records: Sequence[AdapterRecord | FailedAdapter], facts: Mapping[str, Any]) -> Study:
    """Adapters by trained numbers, held-out loss, time and memory, with their curves; failed ones with the reason.

    >>> adapter_study([{"spelled": "lora", "error": "no text"}], {}).trials[0].failed
    'no text'
    """
    check_versions(records)
    good = [record for record in records if is_trained(record)]
    names = list(good[0]["held_out"]) if good else []
    quantities = {
        "trained": Quantity("trained numbers"),
        "bytes": Quantity("bytes of the adapter", "B"),
        **{f"text{i}": Quantity(f"held-out loss on {name}", "nats") for i, name in enumerate(names)},
        "time": Quantity("seconds a step"),
        "memory": Quantity("peak memory", "B"),
    }
    trials = [_adapter(record, names) for record in records]
    sentence = "Nothing could be measured: every adapter failed. The table gives the reasons."
    if good:
        best = min(good, key=lambda r: sum(losses_of["after"] for losses_of in r["held_out"].values()))
        losses = "; ".join(
            f"{figure(losses_of['before'])} before and {figure(losses_of['after'])} after on {name}"
            for name, losses_of in best["held_out"].items()
        )
        sentence = f"The held-out loss is {losses}."
        if len(records) > 1:
            trained = f"{len(good)} of {len(records)} adapters were trained."
            sentence = f"{trained} Least is the loss of {best['spelled']}: {losses}."
    command = str(next((line for r in records if (line := r.get("command"))), "not recorded"))
    title = f"{len(records)} adapters trained alike" if len(records) > 1 else f"The adapter {records[0]['spelled']}"
    return Study(
        title, sentence, command, quantities, trials, "trained",
        "text0" if names else "bytes", facts, curve=("step", "loss in training, nats a token"),
        samples=good[0].get("samples", ()) if len(records) == len(good) == 1 else (),
    )  # fmt: skip


def _adapter(record: AdapterRecord | FailedAdapter, names: Sequence[str]) -> StudyTrial:
    if not is_trained(record):
        return StudyTrial(record["spelled"], failed=str(failed_trial(record)))
    values = {
        "trained": record["trained_parameters"],
        "bytes": record["bytes"],
        "time": record["seconds"]["training"] / record["steps"],
        "memory": record["peak_memory_bytes"],
        **{f"text{i}": record["held_out"][name]["after"] for i, name in enumerate(names)},
    }
    return StudyTrial(record["spelled"], values, curve=record["loss_curve"])
