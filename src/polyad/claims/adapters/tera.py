"""TeRA's rank, and its accuracy on planted tasks beside VeRA's and LoRA's. Half a minute on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad._callback import Callback
from polyad.adapters import Adapters, Frozen, LoRA, TeRA, VeRA
from polyad.claims._data_hash import sha
from polyad.claims._planted_changes import Tasks, accuracy, descend, normal
from polyad.claims.record import Result

MINUTES = 1
SIZE = 64


def rank(seed: int) -> dict[str, int]:
    """The numerical rank of an update whose vectors are drawn, and the count of its numbers."""
    g = Generator().manual_seed(seed)
    adapter, below = TeRA((SIZE, SIZE)), Frozen(nn.Linear(SIZE, SIZE))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(1 + 0.3 * normal(g, *parameter.shape))
        return {"rank": int(torch.linalg.matrix_rank(adapter.update(below).to_dense().double())),
                "trained": sum(p.numel() for p in adapter.parameters())}  # fmt: skip


def task_accuracy(tasks: Tasks, task: int, method: Any, **given: Any) -> dict[str, float]:
    """The accuracy that an adapter of the two hidden layers reaches on a task."""
    model = tasks.base()
    x, y = tasks.draw_rows(task, 2000, seed=1)
    adapters = Adapters(model)
    if method is not None:
        adapters.attach("a", ["0", "2"], method, seed=task, **given)
        descend(adapters, "a", lambda: nn.functional.cross_entropy(model(x), y), steps=200, lr=0.02)
    held_out = tasks.draw_rows(task, 2000, seed=2)
    trained = sum(p.numel() for p in adapters.parameters("a")) if method is not None else 0
    return {"accuracy": accuracy(model, *held_out), "trained": trained}


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The least numerical rank over five draws, of 64."""
    ranks = [rank(seed) for seed in range(5)]
    tasks = Tasks(3)
    runs = [
        {"none": task_accuracy(tasks, t, None), "tera": task_accuracy(tasks, t, TeRA),
         "vera": task_accuracy(tasks, t, VeRA, rank=32), "lora": task_accuracy(tasks, t, LoRA, rank=4)}
        for t in range(3)
    ]  # fmt: skip
    inputs: list[Tensor] = [tasks.draw_rows(t, 2000, seed=1)[0] for t in range(3)]
    return Result(
        "an update of 64 x 64 of 32 trained numbers has at least 0.95 of the full numerical rank, where LoRA of rank "
        "one takes 128 numbers; least of five draws",
        min(each["rank"] for each in ranks) / SIZE, ">=", 0.95, {"planted tasks": sha(inputs)}, 0,
        {"ranks": ranks, "accuracy on three tasks, held out": runs},
    )  # fmt: skip
