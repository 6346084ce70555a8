"""Learning rates that suit each adapter: short trainings at ever lower rates, judged by the held-out loss.

At the trained numbers of LoRA of rank 8, SmolLM2-135M in float32, the batches of ``finetune``. A method starts from
the rate that its class states, goes down by factors of three until the loss of held-out windows, which are longer
than those of the training, is worse, and up where the first step down is. The loss of the batches themselves is no
guide: it still falls at rates that spoil longer contexts. Each method that is finished is stored at once in
results/rates.json; what is stored is not run again. The classes' ``learning_rate`` are read off it.

    python -m benchmarks.rates [--threads 2] [--steps 30] [lora dora lokr:alpha=2 …]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.finetune import SLOW, TEXTS

import polyad
from polyad.adapters import Adapters, LoRA
from polyad.adapters.finetuning import NAME, Finetuning, finetune, write_record
from polyad.adapters.learning import DivergedError
from polyad.adapters.making import opened
from polyad.adapters.named import method_of
from polyad.adapters.sizing import sized, trained

RESULTS = Path(__file__).parent / "results" / "rates.json"
DIVERGED = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="adapters as `polyad adapt` takes them; by default all")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    model = polyad.load("smollm2", dtype=torch.float32)
    which = Finetuning(TEXTS).which(model)
    count = trained(model, which, partial(LoRA, rank=8))
    for name in given.methods or [SLOW.get(card.name, card.name) for card in polyad.methods("adapter")]:
        if name in _known(given.results):
            continue
        method, _ = sized(model, which, method_of(name), count)
        stated: Any = opened(method, {})[0]

        def loss(rate: float, method: Any = method) -> float:
            asked = Finetuning(TEXTS, steps=given.steps, windows=given.windows, rate=rate)
            try:
                record = finetune(model, method, asked)[1]
                return sum(text["after"] for text in record["held_out"].values()) / len(TEXTS)
            except DivergedError:
                return DIVERGED
            finally:
                Adapters(model).detach(NAME)

        found = descended(loss, stated.learning_rate)
        best = min(found, key=lambda rate: found[rate])
        write_record(given.results, {**_known(given.results), name: {"losses": found, "best": best}})
        losses = "  ".join(f"{rate:g}: {found[rate]:.4f}" for rate in sorted(found))
        print(f"{name:24} {best:<8g} {losses}", flush=True)


def descended(loss: Callable[[float], float], start: float, factor: float = 3.0) -> dict[float, float]:
    """The losses at rates from ``start`` in steps of ``factor``, in the direction in which they fall."""
    found = {start: loss(start)}
    for step in (1 / factor, factor):
        rate, least = start, found[start]
        while True:
            rate = float(f"{rate * step:.2g}")
            found[rate] = loss(rate)
            if found[rate] >= least:
                break
            least = found[rate]
        if least < found[start]:
            break
    return found


def _known(results: Path) -> dict[str, Any]:
    return json.loads(results.read_text()) if results.exists() else {}


if __name__ == "__main__":
    main()
