"""What was done, in a sentence and three figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from polyad.report.points import Record, apart, failed, label, mean_quality, rate, size, texts
from polyad.report.words import faster, figure, higher, number, ratio, short, smaller


def title(records: Sequence[Record]) -> str:
    """The report's name, not escaped."""
    good = [r for r in records if not failed(r)]
    model = str(next((r["model"] for r in records if r.get("model")), "a model"))
    if len(records) == 1:
        return str(records[0].get("title") or f"{model}: {label(records[0])}")
    return f"{model}: {len(records)} results compared" + ("" if good else ", all failed")


def sentence(records: Sequence[Record]) -> str:
    """The headline in words, not escaped."""
    good = [r for r in records if not failed(r)]
    if not good:
        return "Nothing could be measured: every point failed. The table gives the reasons."
    if len(records) == 1:
        return f"The model is now {_words(good[0])}."
    lost = len(records) - len(good)
    told = f"{len(good)} of {len(records)} results were measured" + (f" and {lost} failed. " if lost else ". ")
    ranked = [r for r in good if mean_quality(r)[0] is not None and _share(r)]
    if not ranked:
        return told
    least = min(ranked, key=lambda r: mean_quality(r)[0] or 0.0)
    least_size = min(ranked, key=lambda r: _share(r) or 0.0)
    told += f"Least is lost by {label(least)}: {_words(least)}. "
    return told + (f"Smallest is {label(least_size)}: {_words(least_size)}." if least_size is not least else "")


def tiles(record: Record) -> str:
    """Three figures of one result, as HTML."""
    before, after = record["original"], record["compressed"]
    share, (quality, _) = _share(record), mean_quality(record)
    old, new = (short(size(m, "bytes"), "B") for m in (before, after))
    count = len(texts([record]))
    found = [(smaller(share), f"{new} in place of {old}, the whole model"),
             (f"perplexity {higher(quality)}", f"{number(quality, 3)} times the original's"
              + (f", geometric mean over {count} texts" if count > 1 else ""))]  # fmt: skip
    (was, *_), (now, *_) = rate(before, "decode"), rate(after, "decode")
    speed = faster(ratio(now, was))
    if ratio(now, was) is not None:
        spread = " The quartiles overlap: no clear difference." if apart(record, "decode") is False else ""
        found.append((f"decoding {speed}", f"{figure(now)} in place of {figure(was)} tokens a second.{spread}"))
    else:
        found.append(("speed not measured", "Ask for it with --alternations 15."))
    return "<ul class='tiles'>" + "".join(
        f"<li><strong>{escape(big)}</strong><span>{escape(words)}</span></li>" for big, words in found
    ) + "</ul>"  # fmt: skip


def _share(record: Record) -> float | None:
    return ratio(size(record["compressed"], "bytes"), size(record["original"], "bytes"))


def _words(record: Record) -> str:
    (was, *_), (now, *_) = rate(record["original"], "decode"), rate(record["compressed"], "decode")
    speed = ratio(now, was)
    told = f"{smaller(_share(record))} and its perplexity {higher(mean_quality(record)[0])}"
    if speed is None:
        return told
    unsure = " (within the spread)" if apart(record, "decode") is False else ""
    return f"{told}; it decodes {faster(speed)}{unsure}"
