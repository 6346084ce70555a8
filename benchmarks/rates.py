"""Learning rates that suit each adapter: one short run over rising rates a method, on the batches of ``finetune``.

At the trained numbers of LoRA of rank 8, SmolLM2-135M in float32. Each method that is finished is stored at once in
results/rates.json. The rates that classes state as ``learning_rate`` are read off it.

    python -m benchmarks.rates [--threads 2] [--steps 40] [lora dora lokr:alpha=2 …]
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from benchmarks.finetune import SLOW, TEXTS

import polyad
from polyad.adapters import LoRA
from polyad.adapters.finetuning import Finetuning, Tokens, rates
from polyad.adapters.named import method_of
from polyad.adapters.sizing import sized, trained

RESULTS = Path(__file__).parent / "results" / "rates.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="adapters as `polyad adapt` takes them; by default all")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    model = polyad.load("smollm2", dtype=torch.float32)
    asked = Finetuning(TEXTS)
    which = asked.which(model)
    count = trained(model, which, partial(LoRA, rank=8))
    known = json.loads(given.results.read_text()) if given.results.exists() else {"without": [], "methods": {}}
    if len(known["without"]) < given.steps:
        tokens = Tokens(model, asked)
        with torch.no_grad():
            known["without"] = [float(tokens.loss(step)) for step in range(given.steps)]
    for name in given.methods or [SLOW.get(card.name, card.name) for card in polyad.methods("adapter")]:
        if name in known["methods"]:
            continue
        try:
            method, _ = sized(model, which, method_of(name), count)
            found = rates(model, method, asked, steps=given.steps, without=known["without"])
        except (ValueError, TypeError, RuntimeError) as error:
            print(f"{name:24} failed: {error}", flush=True)
            continue
        known["methods"][name] = {"rates": found.rates, "falls": found.falls, "best": found.best}
        partial_file = given.results.with_suffix(".partial")
        partial_file.write_text(json.dumps(known) + "\n")
        partial_file.replace(given.results)
        print(f"{name:24} {found.best:<8g} least {min(found.falls):.3f}", flush=True)


if __name__ == "__main__":
    main()
