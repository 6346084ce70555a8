"""All adapters fine-tuned on ``text-1`` at the trained numbers of LoRA of rank 8: held-out loss, time and memory.

SmolLM2-135M, every linear layer but the output head, 150 steps of 2 x 128 tokens, the same tokens in the same order
for all, each method at its own learning rate. In float32: bfloat16 is several times slower on processors without
instructions for it, so losses are not those that bfloat16 would give. Each run that is finished is stored at once in
results/finetune.json, and one that was stopped goes on from its last kept step, so that the command can be given
again until all are done: what is stored of the same learning rate is not run again. Without names all adapters of the
catalogue are run. Seconds are those on the wall.

With --rate a rate is tried that is not the method's own. Runs of all rates are kept; the ``learning_rate`` of a
class is the one with the least held-out loss among those that were tried for it at seed 0.

    python -m benchmarks.finetune [lora dora lokr:alpha=2 …] [--seeds 0 1 2] [--rate 0.001] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import polyad
from polyad._folders import cache_folder
from polyad.adapters.host.build import Method, method_of, unwrap_method
from polyad.adapters.training.compare import compare_adapters
from polyad.adapters.training.finetune import Finetuning, write_record

RESULTS = Path(__file__).parent / "results" / "finetune.json"
TEXTS = ("stdlib", "sotu")
SLOW = {"vera": "vera:rank=256"}
"""Methods whose frozen part would be far larger than the model at the count of the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="adapters as `polyad adapt` takes them; by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rate", type=float, default=None, help="one to try in place of the methods' own")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    names = given.methods or [SLOW.get(card.name, card.name) for card in polyad.methods("adapter")]
    model = polyad.load("smollm2", dtype=torch.float32)
    for seed in given.seeds:
        for name in names:
            run(model, name, replace(Finetuning(TEXTS, windows=given.windows, steps=given.steps), seed=seed), given)


def run(model: Any, name: str, asked: Finetuning, given: argparse.Namespace) -> None:
    """One training, stored; nothing where it is stored already."""
    method = method_of(name)
    rate = rate_of(method) if given.rate is None else given.rate
    mine = [name, asked.seed, asked.steps, rate]
    if any(identity(record) == mine for record in records(given.results)):
        return
    folder = cache_folder() / "benchmarks" / f"finetune-{'-'.join(map(str, mine))}-{asked.windows}"
    for record in compare_adapters(model, {name: method}, replace(asked, rate=given.rate), folder, callback=told):
        if "error" in record:
            print(f"{record['spelled']:24} failed: {record['error']}", flush=True)
            continue
        kept = [other for other in records(given.results) if identity(other) != mine]
        write_record(given.results, [*kept, record])
        print(shown(record), flush=True)
        shutil.rmtree(folder)


def rate_of(method: Method) -> float:
    """The learning rate that a method's class states."""
    found: Any = unwrap_method(method, {})[0]
    return found.learning_rate


def records(results: Path) -> list[dict[str, Any]]:
    """Every run that is kept."""
    return json.loads(results.read_text()) if results.exists() else []


def identity(record: dict[str, Any]) -> list[Any]:
    """What tells a run from others."""
    return [record[key] for key in ("spelled", "seed", "steps", "learning_rate")]


def told(step: int, total: int | None, values: dict) -> None:
    """A line now and then, for a log."""
    if values["stage"] == "training" and step % 25 == 0:
        print(f"  step {step} of {total}: {values['loss']:.3f}", flush=True)


def shown(record: dict) -> str:
    """One line of the table."""
    losses = "  ".join(f"{t} {h['before']:.4f} to {h['after']:.4f}" for t, h in record["held_out"].items())
    clock = record["seconds"]["training"] / record["steps"]
    peak = (record["peak_memory_bytes"] or 0) / 1e9
    head = f"{record['spelled']:24} {record['trained_parameters']:>9,d}  {losses}"
    return f"{head}  {clock:.2f} s a step  {peak:.2f} GB  rate {record['learning_rate']:g}"


if __name__ == "__main__":
    main()
