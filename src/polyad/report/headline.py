"""The headline of a report: a sentence and three figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from polyad.evaluation.records import CompressionRecord, Point, is_measured
from polyad.report.points import label, mean_quality, measured_size, rate, speeds_differ, texts
from polyad.report.words import change_phrase, figure, number, ratio, short, size_phrase, speed_phrase


def title(records: Sequence[Point]) -> str:
    """The report's name, not escaped."""
    good = [r for r in records if is_measured(r)]
    model = str(next((name for r in good if (name := r.get("model"))), "a model"))
    if len(records) == 1:
        return str(records[0].get("title") or f"{model}: {label(records[0])}")
    return f"{model}: {len(records)} results compared" + ("" if good else ", all failed")


def sentence(records: Sequence[Point]) -> str:
    """The headline in words, not escaped."""
    good = [r for r in records if is_measured(r)]
    if not good:
        return "Nothing could be measured: every point failed. The table gives the reasons."
    if len(records) == 1:
        return f"The model is now {_summary(good[0])}."
    lost = len(records) - len(good)
    text = f"{len(good)} of {len(records)} results were measured" + (f" and {lost} failed. " if lost else ". ")
    ranked = [r for r in good if mean_quality(r)[0] is not None and _share(r)]
    if not ranked:
        return text
    least = min(ranked, key=lambda r: mean_quality(r)[0] or 0.0)
    least_size = min(ranked, key=lambda r: _share(r) or 0.0)
    text += f"Least is lost by {label(least)}: {_summary(least)}. "
    return text + (f"Smallest is {label(least_size)}: {_summary(least_size)}." if least_size is not least else "")


def tiles(record: CompressionRecord) -> str:
    """Three figures of one result, as HTML."""
    before, after = record["original"], record["compressed"]
    share, (quality, _) = _share(record), mean_quality(record)
    old, new = (short(measured_size(m, "bytes"), "B") for m in (before, after))
    count = len(texts([record]))
    figures = [(size_phrase(share), f"{new} in place of {old}, the whole model"),
             (f"perplexity {change_phrase(quality)}", f"{number(quality, 3)} times the original's"
              + (f", geometric mean over {count} texts" if count > 1 else ""))]  # fmt: skip
    (was, *_), (now, *_) = rate(before, "decode"), rate(after, "decode")
    speed = speed_phrase(ratio(now, was))
    if ratio(now, was) is not None:
        spread = " The quartiles overlap: no clear difference." if speeds_differ(record, "decode") is False else ""
        figures.append((f"decoding {speed}", f"{figure(now)} in place of {figure(was)} tokens a second.{spread}"))
    else:
        figures.append(("speed not measured", "Ask for it with --alternations 15."))
    return "<ul class='tiles'>" + "".join(
        f"<li><strong>{escape(big)}</strong><span>{escape(words)}</span></li>" for big, words in figures
    ) + "</ul>"  # fmt: skip


def _share(record: CompressionRecord) -> float | None:
    return ratio(measured_size(record["compressed"], "bytes"), measured_size(record["original"], "bytes"))


def _summary(record: CompressionRecord) -> str:
    (was, *_), (now, *_) = rate(record["original"], "decode"), rate(record["compressed"], "decode")
    speed = ratio(now, was)
    text = f"{size_phrase(_share(record))} and its perplexity {change_phrase(mean_quality(record)[0])}"
    if speed is None:
        return text
    unsure = " (within the spread)" if speeds_differ(record, "decode") is False else ""
    return f"{text}; it decodes {speed_phrase(speed)}{unsure}"
