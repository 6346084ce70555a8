"""All adapters fine-tuned on ``text-1`` at the trained numbers of LoRA of rank 8: held-out loss, time and memory.

SmolLM2-135M, every linear layer but the output head, 150 steps of 2 x 128 tokens, the same tokens in the same order
for all, each method at its own learning rate. In float32: bfloat16 is several times slower on processors without
instructions for it, so losses are not those that bfloat16 would give. Each method that is finished is stored at once
in results/finetune.json, and one that was stopped goes on from its last kept step, so that the command can be given
again until all are done: what is stored of the same learning rate is not run again. Without names all adapters of the
catalogue are run. Seconds are those on the wall.

    python -m benchmarks.finetune [--seeds 0 1 2] [--threads 2] [lora dora lokr:alpha=2 …]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import polyad
from polyad._folders import cache_folder
from polyad.adapters.comparing import compare
from polyad.adapters.finetuning import Finetuning
from polyad.adapters.making import Method, opened
from polyad.adapters.named import method_of

RESULTS = Path(__file__).parent / "results" / "finetune.json"
TEXTS = ("stdlib", "sotu")
SLOW = {"vera": "vera:rank=256"}
"""Methods whose frozen part would be far larger than the model at the count of the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="adapters as `polyad adapt` takes them; by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    names = given.methods or [SLOW.get(card.name, card.name) for card in polyad.methods("adapter")]
    methods = {name: method_of(name) for name in names}
    model = polyad.load("smollm2", dtype=torch.float32)
    known = json.loads(given.results.read_text()) if given.results.exists() else []
    for seed in given.seeds:
        done = {r["spelled"] for r in known if (r["seed"], r["steps"]) == (seed, given.steps) and _same(methods, r)}
        left = {name: method for name, method in methods.items() if name not in done}
        asked = replace(Finetuning(TEXTS, windows=given.windows, steps=given.steps), seed=seed)
        folder = cache_folder() / "benchmarks" / f"finetune-{given.steps}-{given.windows}-seed{seed}"
        for record in compare(model, left, asked, folder, callback=told):
            if "error" in record:
                print(f"{record['spelled']:24} failed: {record['error']}", flush=True)
            else:
                stored(given.results, record)
                print(shown(record), flush=True)


def _same(methods: dict[str, Method], record: dict[str, Any]) -> bool:
    """Whether a stored run had the learning rate that its method has now."""
    method: Any = methods.get(record["spelled"])
    return method is not None and opened(method, {})[0].learning_rate == record["learning_rate"]  # type: ignore[attr-defined]


def told(step: int, total: int | None, values: dict) -> None:
    """A line now and then, for a log."""
    if values["stage"] == "training" and step % 25 == 0:
        print(f"  step {step} of {total}: {values['loss']:.3f}", flush=True)


def stored(results: Path, record: dict) -> None:
    """Put a record among the results, in the place of an earlier one of the same method and seed."""
    known = json.loads(results.read_text()) if results.exists() else []
    mine = [record["spelled"], record["seed"], record["steps"]]
    kept = [r for r in known if [r["spelled"], r["seed"], r["steps"]] != mine]
    partial = results.with_suffix(".partial")
    partial.write_text(json.dumps([*kept, record], indent=1) + "\n")
    partial.replace(results)


def shown(record: dict) -> str:
    """One line of the table."""
    losses = "  ".join(f"{t} {h['before']:.4f} to {h['after']:.4f}" for t, h in record["held_out"].items())
    clock = record["seconds"]["training"] / record["steps"]
    peak = (record["peak_memory_bytes"] or 0) / 1e9
    head = f"{record['spelled']:24} {record['trained_parameters']:>9,d}  {losses}"
    return f"{head}  {clock:.2f} s a step  {peak:.2f} GB  rate {record['learning_rate']:g}"


if __name__ == "__main__":
    main()
