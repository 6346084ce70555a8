"""A model distilled into a shared backbone and a low-rank expert for each task."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.methods.lora import LoRA
from polyad.train import descend

Batch = tuple[Tensor, Tensor, Sequence[str]]
"""Inputs, their labels, and the task of every row."""


@method(
    "operation",
    example={
        "arguments": lambda g: _draw_tasks(g),
        "changes": ("adapters",),
        "off": lambda losses, **_: abs(losses[-1]) / (0.1 * losses[0]),
    },
    papers=(
        Paper(
            "Zhou, Li, Du, Yao, Zhang, Wang",
            2024,
            "Low-Rank Knowledge Decomposition for Medical Foundation Models",
            "arXiv:2404.17184",
            handle="lorkd",
        ),
    ),
)
def lorkd(
    adapters: Adapters,
    tasks: Sequence[str],
    batches: Callable[[int], Batch],
    teacher: Callable[[Tensor], Tensor] | None = None,
    *,
    steps: int,
    rate: float = 1e-3,
    weight: float = 1.0,
    temperature: float = 4.0,
    callback: Callback | None = None,
) -> list[float]:
    """Train a model and its adapters together, each row through the adapter of its own task; returns the losses.

    The adapters called ``tasks`` must be attached (LoRAs in the paper, of any rank each); the model is the backbone,
    and those of its parameters are trained that were before adapters came. ``batches(step)`` gives inputs, labels
    (rows,) and one of ``tasks`` a row. The loss is the cross entropy of the model's logits and, with ``teacher``,
    ``weight`` T² KL(softmax(teacher / T) ‖ softmax(student / T)) at T = ``temperature``, in the mean over rows; Adam
    at ``rate`` falling as a cosine. A task's gradient reaches the backbone and its own adapter; that of others is
    exactly zero.

    The backbone runs once for a mixed batch, and each adapter on its rows, as the paper's grouped convolution does.
    Where that runs per-task heads over a shared feature, the logits here are the model's own. The paper's teacher has
    features of another width, which are mapped and matched; here its logits are. ``expert`` gives a task's model.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> from polyad.adapters import LoRA
    >>> host = Adapters(model)
    >>> _ = [host.attach(task, "*", LoRA, rank=1) for task in ("a", "b")]
    >>> x, y = torch.eye(4), torch.tensor([0, 1, 2, 0])
    >>> losses = lorkd(host, ["a", "b"], lambda step: (x, y, "aabb"), steps=200, rate=0.02)
    >>> losses[-1] < 0.1 * losses[0], type(expert(host, "a")[0]).__name__
    (True, 'Linear')
    """
    if not tasks or not 0 < temperature < math.inf:
        raise ValueError(
            f"tasks={list(tasks)} must name an adapter, and temperature={temperature} must be finite and above 0"
        )
    experts = [p for task in tasks for p in adapters.parameters(task)]
    trained = adapters.common.trainable
    backbone = [p for name, p in adapters.model.named_parameters() if trained.get(name, False)]

    def loss(step: int) -> Tensor:
        x, labels, names = batches(step)
        with adapters.routed(list(names)):
            logits = adapters.model(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            what = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the model returns {what}; adapt a module that returns logits (rows, classes)")
        return _loss(logits, labels, None if teacher is None else (teacher, x), weight, temperature)

    for p in backbone:
        p.requires_grad_(True)
    try:
        return descend([*backbone, *experts], loss, steps=steps, rate=rate, stage="distilling", callback=callback)
    finally:
        for p in backbone:
            p.requires_grad_(False)


def expert(adapters: Adapters, task: str) -> nn.Module:
    """A copy of the model with one task's adapter in its weights and no others; it costs what the model does."""
    adapters.of(task)  # refuses a name that is not attached
    model = copy.deepcopy(adapters.model)
    host = Adapters(model)
    host.activate(task)
    host.merge(keep=False)
    return model


def _loss(
    logits: Tensor, labels: Tensor, taught: tuple[Callable[[Tensor], Tensor], Tensor] | None, weight: float, t: float
) -> Tensor:
    loss = F.cross_entropy(logits, labels)
    if taught is None:
        return loss
    teacher, x = taught
    with torch.no_grad():
        wanted = (teacher(x) / t).log_softmax(-1)
    predicted = (logits / t).log_softmax(-1)
    return loss + weight * t**2 * F.kl_div(predicted, wanted, reduction="batchmean", log_target=True)


def _draw_tasks(generator: Generator) -> dict[str, Any]:
    """A small model with an adapter for each of two tasks that want other labels of the same rows."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    adapters = Adapters(model)
    for i, task in enumerate("ab"):
        adapters.attach(task, "*", LoRA, rank=2, seed=i)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not name.endswith("B"):
                p.copy_(torch.randn(p.shape, generator=generator) / 2)
    rows, labels = torch.eye(4).repeat(2, 1), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    return {
        "adapters": adapters, "tasks": ["a", "b"], "batches": lambda _: (rows, labels, "aaaabbbb"),
        "steps": 60, "rate": 0.1, "temperature": 2.0,
    }  # fmt: skip
