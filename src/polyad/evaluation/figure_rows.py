"""The figures of one compression as a table of words, for terminals and cards."""

from __future__ import annotations

from polyad._figures import number, share
from polyad.evaluation.records import CompressionRecord

HEADS = ["", "original", "compressed", "ratio"]


def figure_rows(record: CompressionRecord) -> tuple[list[str], list[list[str]]]:
    """The heads and the rows: quality, sizes, speed and agreement beside the original's."""
    before, after, agreement = record["original"], record["compressed"], record["agreement"]
    rows: list[list[str]] = []
    for text, value in after["perplexity"].items():
        old = before["perplexity"][text]
        error = after.get("details", {}).get("perplexity", {}).get(text, {}).get("error")
        ratio = f"{value / old:.3f}" if error is None else f"{value / old:.3f} ± {error:.3f}"
        rows.append([f"perplexity, {text}", number(old), number(value), f"{ratio} x"])
    for name, label in (("parameters", "parameters"), ("bytes", "bytes")):
        for part in ("selected", "total"):
            old, new = before[name][part], after[name][part]
            rows.append([f"{label}, {part}", number(old, 0), number(new, 0), share(new, old)])
    for name, label, digits in (
        ("operations_per_token", "operations a token", 0),
        ("prefill_tokens_per_second", "prefill, tokens a second", 1),
        ("decode_tokens_per_second", "decoding, tokens a second", 1),
        ("peak_memory_bytes", "peak memory, bytes", 0),
    ):
        old, new = before[name], after[name]
        rows.append([label, number(old, digits), number(new, digits), share(new, old)])
    rows.append(["KL from the original, nats", "0", number(agreement["kl"], 4), ""])
    rows.append(["same top token", "100.0 %", share(agreement["top1"], 1), ""])
    return HEADS, rows
