"""Writes docs/adapters-measured.md and docs/exports-measured.md from the kept results of the benchmarks.

Run it with `make docs` after benchmarks/finetune.py, benchmarks/adapters.py or benchmarks/exports wrote new ones.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
TEXTS = {"stdlib": "library", "sotu": "addresses"}
HEAD = """# Adapters, measured

Written by `make docs` from `benchmarks/results`; what the methods are is in [adapters.md](adapters.md).
"""
TUNED = """## Fine-tuned on two texts

SmolLM2-135M, all linear layers but the output head, {steps} steps of 2 x 128 tokens of Python's standard library and
the State of the Union addresses, the same for all, in float32; each method at about the trained numbers of LoRA of
rank 8 where it has a size that reaches them. Losses are of held-out windows in nats a token at seed 0, which gives
all methods the same batches, best first by their mean; beside them the means over three seeds (± half of their
spread) where there are three. Seeds have batches of their own: two methods compare within one column alone. The
frozen model has {before}.

The learning rate is the best at seed 0 of those tried, which are given too; it is what the method's class states.
Where one alone was tried, forty steps over rising rates had found it (`rate_range`), for `lokr` two short trainings.

All are trained by AdamW but `riemannlora`, whose steps are SGD's; `eigenlorax` has random directions, since there
are no adapters whose directions it could recycle, so that its line does not show what it is for, and `loqt` is not
merged on the way.

Seconds a step and the peak memory of the process are of machines that others used, so that a difference of less than
a half says little.
"""
COSTS = """## What a step costs

Two decoder layers of SmolLM2-135M, 4 x 256 tokens, float32, forward and backward: time and saved activations beside
the frozen layers', and the time of one row through the seven linear layers of one decoder layer, unmerged. {threads}
threads, medians of ratios within a turn.
"""


def tuned(records: list[dict[str, Any]]) -> str:
    """The table of fine-tuning, a line a method."""
    steps = max(r["steps"] for r in records)
    groups: dict[str, dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["steps"] == steps:
            groups[record["spelled"]][record["learning_rate"]].append(record)
    before = ", ".join(f"{records[0]['held_out'][t]['before']:.3f} ({TEXTS[t]})" for t in TEXTS)
    lines = [TUNED.format(steps=steps, before=before)]
    texts = (*TEXTS.values(), *(f"{text}, seeds" for text in TEXTS.values()))
    heads = ("method", "trained numbers", "rate", "also tried", *texts, "s a step", "GB")
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    found = {name: (rates[best_rate(rates)], sorted(rates)) for name, rates in groups.items()}
    first = {name: next(r for r in runs if r["seed"] == 0) for name, (runs, _) in found.items()}
    for name in sorted(found, key=lambda name: mean(_after(first[name], t) for t in TEXTS)):
        runs, rates = found[name]
        losses = [f"{_after(first[name], t):.3f}" for t in TEXTS]
        seeds = [_spread([_after(r, t) for r in runs]) if len(runs) > 1 else "" for t in TEXTS]
        clock = min(r["seconds"]["training"] / r["steps"] for r in runs)
        peak = max(r["peak_memory_bytes"] or 0 for r in runs) / 1e9
        numbers, rate = runs[0]["trained_parameters"], runs[0]["learning_rate"]
        others = ", ".join(f"{other:g}" for other in rates if other != rate)
        cells = (f"`{name}`", f"{numbers:,}", f"{rate:g}", others, *losses, *seeds, f"{clock:.1f}", f"{peak:.1f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, ""])


def best_rate(rates: dict[float, list[dict[str, Any]]]) -> float:
    """The learning rate with the least held-out loss at seed 0, of runs by rate."""
    first = {rate: [r for r in runs if r["seed"] == 0] for rate, runs in rates.items()}
    return min((r for r in first if first[r]), key=lambda r: mean(_after(first[r][0], t) for t in TEXTS))


def costs(kept: dict[str, Any]) -> str:
    """The table of times and memory, a line a method, quickest first, those of peft last."""
    lines = [COSTS.format(threads=kept["threads"])]
    lines += ["| method | trained numbers | step | activations | one row |", "|---" * 5 + "|"]
    rows = {name: row for name, row in kept["methods"].items() if name != "frozen"}
    for name in sorted(rows, key=lambda name: (name.startswith("peft"), rows[name]["time"])):
        r = rows[name]
        lines.append(f"| {name} | {r['trained']:,} | {r['time']:.2f} | {r['activations']:.2f} | {r['decode']:.1f} |")
    return "\n".join([*lines, ""])


def _after(record: dict[str, Any], text: str) -> float:
    return record["held_out"][text]["after"]


def _spread(values: list[float]) -> str:
    half = (max(values) - min(values)) / 2
    return f"{mean(values):.3f} ± {half:.3f}"


EXPORTED = """# Exported files, measured

Written by `make docs` from `benchmarks/results/exports.json`; `python -m benchmarks.exports` measures.

## GGUF

SmolLM2-135M in other numbers of the same function (its own lie on a grid of four bits, which would cost nothing).
First its dense weights in each container, beside the file that `llama-quantize` writes with the same container for
each tensor; then models compressed by `polyad compress --for gguf`. Perplexities are over the original's: as polyad
scores the file that it reads back, and as `llama-perplexity` scores the file, on the same tokens. The embedding is in
Q8_0 throughout. Rows of 576 are no multiples of 256: in the lines of K containers they are in those of 32 numbers.
"""
GRAPHS = """## ONNX

A sentence encoder (128 tokens) and a classifier of pictures (224 x 224), compressed, exported by the command, and run
by onnxruntime on one thread: bytes, processor time of one input, and the distance of the first output from that of
the uncompressed network, all over the original's.
"""


def exports(rows: dict[str, Any]) -> str:
    """The tables of exported files, GGUF and ONNX."""
    heads = ("weights", "MB", "bytes / llama.cpp's", "read back", "llama-perplexity", "llama.cpp's own file")
    lines = [EXPORTED, *_head(heads)]
    for name, row in rows.items():
        kind = name.removeprefix("gguf, ")
        if name.startswith("gguf") and "bytes" in row:
            size, ratios = row["bytes"], row["perplexity"]
            ours = size.get("ours", size.get("file"))
            beside = f"{ours / size['llama.cpp']:.4f}" if "llama.cpp" in size else ""
            engine = ratios.get("llama.cpp's own file")
            cells = (f"`{kind}`", f"{ours / 1e6:.1f}", beside, f"{ratios['read back']:.3f}",
                     f"{ratios['llama-perplexity']:.3f}", "" if engine is None else f"{engine:.3f}")  # fmt: skip
            lines.append(_line(cells))
    lines += ["", GRAPHS, *_head(("network", "bytes", "time", "apart", "rows"))]
    for name, row in rows.items():
        if name.startswith("onnx"):
            size, spent = (one["value"] for one in row["asked"])
            level = row["checked"].get("accuracy_level")
            kept = {None: "", 1: "as they are", 4: "rounded to 8 bits"}[level]
            lines.append(
                _line((name.removeprefix("onnx, "), f"{size:.2f}", f"{spent:.2f}", f"{row['apart']:.3f}", kept))
            )
    return "\n".join([*lines, ""])


def _head(cells: tuple[str, ...]) -> list[str]:
    return [_line(cells), "|---" * len(cells) + "|"]


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The page of adapters."""
    records = json.loads((RESULTS / "finetune.json").read_text())
    kept = json.loads((RESULTS / "adapters.json").read_text())
    return "\n".join([HEAD, tuned(records), costs(kept)])


def exports_page() -> str:
    """The page of exported files."""
    return exports(json.loads((RESULTS / "exports.json").read_text())["rows"])


PAGES = {"adapters-measured.md": page, "exports-measured.md": exports_page}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (HERE / name).write_text(write(), encoding="utf-8")
