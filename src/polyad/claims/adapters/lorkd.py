"""Distillation into a small backbone with an expert a task, against the backbone alone. Half a minute on one core.

Medical pictures are absent: a task is a planted group of inputs with classes of its own. Experts and the backbone
alone have the same size when they run, the same loss, teacher, rows and steps.
"""

from __future__ import annotations

from statistics import mean
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from polyad._callback import Callback
from polyad.adapters import Adapters, LoRA, expert, lorkd
from polyad.claims._data_hash import sha
from polyad.claims._planted_changes import normal
from polyad.claims.record import Result

MINUTES = 1
TASKS, CLASSES, IN, WIDTH, TEACHER, RANK = 5, 4, 24, 24, 256, 4
ROWS, HELD, STEPS, BATCH = 800, 1000, 1500, 200


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The least gain, over seeds, in mean accuracy of the experts over the backbone distilled alone."""
    runs, data = [], []
    for seed in range(3):
        rows = planted_rows(seed, ROWS, HELD)
        data += [x for x, _ in rows.values()]
        runs.append(run(rows, seed))
    gains = [run["experts"]["mean"] - run["backbone alone"]["mean"] for run in runs]
    return Result(
        "a small model distilled with a low-rank expert a task, which is merged into it afterwards, is at least as "
        "accurate on the tasks, in the mean, as the same model distilled without experts; least gain of three seeds",
        min(gains), ">=", 0.0, {"planted tasks": sha(data)}, 0, {"gains": gains, "runs": runs},
    )  # fmt: skip


def planted_rows(seed: int, rows: int, held: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Rows of ``TASKS`` groups, with means of their own, labelled by a random perceptron each."""
    g = Generator().manual_seed(seed)
    groups: dict[str, tuple[Tensor, Tensor]] = {}
    for task in range(TASKS):
        middle, first = normal(g, IN), normal(g, 32, IN) / IN**0.5
        last = normal(g, CLASSES, 32)
        for name, count in (("train", rows), ("held", held)):
            x = normal(g, count, IN)
            y = (2 * x @ first.mT).tanh() @ last.mT
            groups[f"{name}{task}"] = x + middle, y.argmax(-1) + CLASSES * task
    return groups


def run(rows: dict[str, tuple[Tensor, Tensor]], seed: int) -> dict[str, dict[str, float]]:
    """Accuracies on every task, among its own classes, of the teacher, the experts and the backbone alone."""
    names = [f"task{task}" for task in range(TASKS)]
    x, y = (torch.cat([rows[f"train{task}"][i] for task in range(TASKS)]) for i in range(2))
    teacher = perceptron(TEACHER, seed)
    descend(teacher, x, y, seed)
    figures = {"teacher": accuracies(rows, [teacher] * TASKS)}
    for kind in ("experts", "backbone alone"):
        model, g = perceptron(WIDTH, seed), Generator().manual_seed(seed)
        adapters = Adapters(model)
        for i, name in enumerate(names):
            adapters.attach(name, "*", LoRA, rank=RANK, seed=i)

        def batches(_: int, g: Generator = g, alone: bool = kind != "experts") -> Any:
            some = torch.randint(len(x), (BATCH,), generator=g)
            return x[some], y[some], [None if alone else names[int(i) // ROWS] for i in some]

        lorkd(adapters, names, batches, teacher, steps=STEPS, rate=5e-3)
        adapters.activate([])
        models = [expert(adapters, name) if kind == "experts" else model for name in names]
        figures[kind] = accuracies(rows, models)
    return figures


def perceptron(width: int, seed: int) -> nn.Sequential:
    """Two hidden layers of this width, and all classes of all tasks."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(IN, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, TASKS * CLASSES)
        )


def descend(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> None:
    """The teacher's own training."""
    g, optimizer = Generator().manual_seed(seed), torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.1)
    for _ in range(600):
        some = torch.randint(len(x), (BATCH,), generator=g)
        optimizer.zero_grad()
        F.cross_entropy(model(x[some]), y[some]).backward()
        optimizer.step()


def accuracies(rows: dict[str, tuple[Tensor, Tensor]], models: list[nn.Module]) -> dict[str, float]:
    """The accuracy of one model a task on what it has not seen."""
    by_task: dict[str, float] = {}
    for task, model in enumerate(models):
        x, y = rows[f"held{task}"]
        with torch.no_grad():
            scores = model(x)[:, CLASSES * task : CLASSES * (task + 1)]
        by_task[f"task {task}"] = float((scores.argmax(-1) + CLASSES * task == y).float().mean())
    return {"mean": mean(by_task.values()), **by_task}
