"""Reversible merging of six LoRAs against merging them into one. Half a minute on one core."""

from __future__ import annotations

from statistics import mean

from polyad._callback import Callback
from polyad.adapters import Adapters, LoRA, combine, reversible_merge
from polyad.claims._data_hash import sha
from polyad.claims._planted_changes import Tasks, held_out_accuracy, tune
from polyad.claims.record import Result

MINUTES = 1
COUNT, RANK, KEEP = 6, 4, 2


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The share of the mean gain in accuracy that two bases keep, less that of the better of two plain merges."""
    tasks = Tasks(COUNT)
    adapters = Adapters(tasks.base())
    names = [f"task{t}" for t in range(COUNT)]
    for t, name in enumerate(names):
        adapters.attach(name, ["0", "2"], LoRA, rank=RANK, seed=t)
        tune(tasks, t, adapters, name)
    for name, weight in (("average", 1 / COUNT), ("sum", 1.0)):
        combine(adapters, name, dict.fromkeys(names, weight), rank=COUNT * RANK)
    means = {kind: mean(held_out_accuracy(tasks, t, adapters, adapter) for t in range(COUNT))
             for kind, adapter in (("none", None), ("average", "average"), ("sum", "sum"))}  # fmt: skip
    means["each its own"] = mean(held_out_accuracy(tasks, t, adapters, name) for t, name in enumerate(names))
    numbers = {}
    for keep in (1, KEEP, 3, RANK):
        merged = reversible_merge(adapters, names, keep)
        accuracies: list[float] = []
        for t, name in enumerate(names):
            merged.attach(adapters, name, "again")
            accuracies.append(held_out_accuracy(tasks, t, adapters, "again"))
            adapters.detach("again")
        means[f"{keep} bases"] = mean(accuracies)
        numbers[f"{keep} bases"] = merged.numbers
    numbers["all"] = sum(p.numel() for name in names for p in adapters.parameters(name))
    gain = means["each its own"] - means["none"]
    plain = max(means["average"], means["sum"])
    return Result(
        "of six LoRAs' mean gain in accuracy on their own tasks, reversible merging with two bases keeps more than "
        "the better of their average and their sum, by at least a tenth of the gain",
        (means[f"{KEEP} bases"] - plain) / gain, ">=", 0.1,
        {"planted tasks": sha(tasks.draw_rows(t, 1000, seed=1)[0] for t in range(COUNT))}, 0,
        {"mean accuracy": means, "numbers held": numbers},
    )  # fmt: skip
