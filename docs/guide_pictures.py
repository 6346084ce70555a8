"""Draws the pictures of README and the guides from the kept results of benchmarks and claims.

    python docs/guide_pictures.py

`make docs` runs it. Every number in them is committed beside the code that measured it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charts import bars, scatter

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
CLAIMS = HERE.parent / "src" / "polyad" / "claims" / "results"


def speed() -> str:
    """A token of SmolLM2 on one thread of transformers' and of polyad's loop."""
    rows = json.loads((RESULTS / "decoding.json").read_text())["rows"]
    four, eight = (rows[f"generate {bits} bits 1 thread"]["milliseconds"] for bits in (4, 8))
    shown = [("transformers, float32", four["float32"]), ("transformers, bfloat16", four["bfloat16"]),
             ("polyad, the same weights", four["original in the loop"]), ("polyad, 8 bits", eight["ours"]),
             ("polyad, 4 bits", four["ours"])]  # fmt: skip
    title = "A token of SmolLM2-135M, one thread, less is better"
    return bars(title, shown, "ms", [name for name, _ in shown if name.startswith("polyad")])


def smaller() -> str:
    """What rounding and compensation cost, against the bytes of the layers."""
    kept = json.loads((CLAIMS / "eora.json").read_text())["details"]
    names = {"none": "4 bits, groups of 64", "group of 32": "4 bits, groups of 32", "five bits": "5 bits",
             "svd": "4 bits + SVD, rank 32", "eora": "4 bits + EoRA, rank 32"}  # fmt: skip
    points = [(name, kept["bytes of the layers"][k] / 1e6, kept["perplexity ratio"][k]) for k, name in names.items()]
    title = "SmolLM2-135M off its file's grid: the linear layers in few bits"
    return scatter(
        title, {"": points}, "megabytes of the layers (212 in bfloat16)", "perplexity, times the original's"
    )


def fine_tuned() -> str:
    """Every adapter's held-out loss against its trained numbers."""
    best: dict[str, dict[str, Any]] = {}
    for record in json.loads((RESULTS / "finetune.json").read_text()):
        if record["seed"] == 0 and (
            record["spelled"] not in best or held_out_loss(record) < held_out_loss(best[record["spelled"]])
        ):
            best[record["spelled"]] = record
    shown = {"lora", "dora", "vera", "lokr", "oft", "ia3", "pissa"}
    groups = {
        "well known": [
            (n, r["trained_parameters"], held_out_loss(r)) for n, r in best.items() if r["method"] in shown
        ],
        "the others": [
            (n, r["trained_parameters"], held_out_loss(r)) for n, r in best.items() if r["method"] not in shown
        ],
    }
    title = "SmolLM2-135M fine-tuned on two texts, 150 steps, every adapter"
    return scatter(title, groups, "trained numbers", "held-out loss, nats a token", log=True, named=False)


def cache() -> str:
    """Perplexity after a prompt of 4,096 tokens against what the cache holds."""
    kept = json.loads((RESULTS / "caches.json").read_text())["rows"]
    names = {"kivi 4": "kivi, 4 bits", "kivi 2": "kivi, 2 bits"}
    names |= dict.fromkeys(("3.5x", "4.5x", "6x"), "transform_coding")
    points = [(name, kept["quality sotu"][k]["ratio_of_bytes"], kept["quality sotu"][k]["ratio"])
              for k, name in names.items()]  # fmt: skip
    title = "SmolLM2-135M, prompts of 4,096 tokens of the State of the Union addresses"
    return scatter(title, {"": points}, "times smaller than an exact cache in bfloat16",
                   "perplexity, times the exact cache's")  # fmt: skip


def training() -> str:
    """What a step keeps for the backward pass, polyad's adapters beside peft's."""
    kept = json.loads((RESULTS / "adapters.json").read_text())["methods"]
    rows = []
    for name in ("lora", "lora, dropout", "loha", "lokr", "dora"):
        rows += [
            (f"peft, {name}", kept[f"peft {name}"]["activations"]),
            (f"polyad, {name}", kept[name]["activations"]),
        ]
    strong = [name for name, _ in rows if name.startswith("polyad")]
    return bars("Saved activations of a step, times the frozen layers'", rows, "x", strong)


def held_out_loss(record: Mapping[str, Any]) -> float:
    return sum(text["after"] for text in record["held_out"].values()) / len(record["held_out"])


PICTURES = {"speed": speed, "smaller": smaller, "fine-tuned": fine_tuned, "cache": cache, "training": training}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (HERE / "guides" / f"{name}.svg").write_text(draw(), encoding="utf-8")
