"""The report's tables as HTML; every string of a record is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from polyad.evaluation.records import CompressionRecord, Point, failure, is_measured
from polyad.report.points import label, measured_size, quality, rate, texts
from polyad.report.slow import slow_layers
from polyad.report.words import NONE, figure, is_number, number, percent, ratio, short


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], classes: str = "") -> str:
    """A table in a region that scrolls where the screen is narrow. Cells are HTML; the first heads its row.

    >>> "<th scope='row'>size</th><td>3</td>" in table("sizes", ["", "now"], [["size", "3"]])
    True
    """
    head = "".join(f"<th scope='col'>{column}</th>" for column in columns)
    body = "".join(f"<tr><th scope='row'>{row[0]}</th>" + "".join(map(_cell, row[1:])) + "</tr>" for row in rows)
    return (
        f"<div class='scroll' role='region' tabindex='0' aria-label='{escape(caption)}'><table class='{classes}'>"
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    return text if text.startswith("<td") else f"<td>{text}</td>"


def comparison_table(record: CompressionRecord) -> str:
    """A table of the original beside the compressed model, every quantity that was measured."""
    before, after = record["original"], record["compressed"]
    agreement = record.get("agreement") or {}
    rows = [_quality_row(record, text) for text in texts([record])]
    for key, name, unit in (("parameters", "Parameters", ""), ("bytes", "Bytes", "B")):
        for part, what in (("selected", "what was selected"), ("total", "whole model")):
            old, new = before[key][part], after[key][part]
            rows.append([f"{name}, {what}", short(old, unit), short(new, unit), percent(ratio(new, old))])
    old, new = before.get("operations_per_token"), after.get("operations_per_token")
    rows.append(["Operations a token", short(old), short(new), percent(ratio(new, old))])
    for stage, what in (("prefill", "Reading a prompt, tokens a second"), ("decode", "Decoding, tokens a second")):
        (old, *_), (new, *_) = rate(before, stage), rate(after, stage)
        rows.append([what, _rate(before, stage), _rate(after, stage), percent(ratio(new, old))])
    old, new = before.get("peak_memory_bytes"), after.get("peak_memory_bytes")
    rows.append(["Peak memory", short(old, "B"), short(new, "B"), percent(ratio(new, old))])
    rows.append(["KL from the original, nats", "0", number(agreement.get("kl"), 4), ""])
    rows.append(["Same top token", "100.0 %", percent(agreement.get("top1")), ""])
    sentence = slow_layers(record)
    below = f"<p class='note'>{escape(sentence)}</p>" if sentence else ""
    return table(label(record), ["", "original", "compressed", "compressed / original"], rows) + below


def points_table(records: Sequence[Point]) -> str:
    """A table of every point of a comparison, the failed ones with their reason across the columns that they lack."""
    names = texts(records)
    rows: list[list[str]] = []
    for record in records:
        keep = record.get("keep")
        head = [escape(str(record.get("method") or label(record))), f"{keep:g}" if is_number(keep) else NONE]
        if not is_measured(record):
            reason = f"<span class='bad'>failed</span>: {escape(failure(record) or 'no message')}"
            rows.append([*head, f"<td class='reason' colspan='{len(names) + 6}'><div>{reason}</div></td>"])
            continue
        before, after = record["original"], record["compressed"]
        shares = [
            percent(ratio(measured_size(after, k), measured_size(before, k)))
            for k in ("bytes", "parameters", "operations")
        ]
        speed = percent(ratio(measured_size(after, "decode"), measured_size(before, "decode")))
        top = percent((record.get("agreement") or {}).get("top1"))
        state = "<span class='good'>yes</span>" if record.get("pareto") else ""
        rows.append([*head, *(_ratio(record, name) for name in names), *shares, speed, top, state])
    columns = ["method", "keep", *(f"perplexity ratio, {escape(n)}" for n in names),
               "bytes", "parameters", "operations a token", "decoding", "same top token", "front"]  # fmt: skip
    return table("All points, relative to the original", columns, rows, "points")


def reproduction_table(record: CompressionRecord) -> str:
    """A table of seed, versions, digests of the texts and seconds by stage of one result."""
    plan = record["plan"]
    rows = [["Seed", escape(str(record.get("seed", plan.get("seed"))))]]
    if plan.get("coverage"):
        rows.append(["What was compressed", escape(str(plan["coverage"]))])
    rows += [["Floats stored as", escape(str(record["store"]))]] if record.get("store") else []
    rows += [[f"Version of {escape(str(k))}", escape(str(v))] for k, v in (record.get("versions") or {}).items()]
    speed = ((record["compressed"].get("details") or {}).get("speed")) or {}
    if speed:
        text = f"{speed.get('threads')} thread(s), {speed.get('dtype')}"
        rows.append(["Speed measured with", escape(text)])
    rows += [[f"sha256 of {escape(k)}, base model", _code(v)] for k, v in _base(record).items()]
    rows += [[f"sha256 of {escape(k)}, calibration", _code(v)] for k, v in (plan.get("calibration") or {}).items()]
    for name, detail in ((record["compressed"].get("details") or {}).get("perplexity") or {}).items():
        rows.append([f"sha256 of {escape(name)}, evaluation", _code(detail.get("sha256"))])
        rows.append([f"Windows of {escape(name)}, evaluation", escape(str(detail.get("windows")))])
    stages = {"statistics": "collecting statistics", "plan": "planning, with statistics", "all": "deciding sizes",
              "apply": "applying", "command": "the whole command"}  # fmt: skip
    seconds = {**(plan.get("seconds") or {}), **(record.get("seconds") or {})}
    rows += [[f"Seconds, {escape(stages.get(str(k), str(k)))}", number(v, 1)] for k, v in seconds.items()]
    return table(label(record), ["what", "value"], rows, "facts")


def _base(record: CompressionRecord) -> dict[str, Any]:
    hashes = (record.get("base") or {}).get("sha256")
    return {str(k): v for k, v in hashes.items()} if isinstance(hashes, dict) else {}


def _code(value: Any) -> str:
    return f"<code>{escape(str(value))}</code>"


def _quality_row(record: CompressionRecord, text: str) -> list[str]:
    before, after = record["original"]["perplexity"], record["compressed"]["perplexity"]
    return [f"Perplexity, {escape(text)}", figure(before.get(text)), figure(after.get(text)), _ratio(record, text)]


def _ratio(record: CompressionRecord, text: str) -> str:
    value, error = quality(record, text)
    return (number(value, 3) if value is None or value < 1000 else figure(value)) + (
        f" ± {number(error, 3) if error < 100 else figure(error)}" if error is not None else ""
    )


def _rate(measured: Any, stage: str) -> str:
    middle, low, high = rate(measured, stage)
    spread = f" <small>({figure(low)} to {figure(high)})</small>" if is_number(low) and is_number(high) else ""
    return figure(middle) + spread
