"""A light network that predicts another's output from features that are computed anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.train import descend


@method(
    "operation",
    example={
        "arguments": lambda g: _draw_heads(g),
        "changes": ("head",),
        "off": lambda losses, **_: abs(losses[-1]) / (0.02 * losses[0]),
    },
    instead=(
        "In place of averaging with a second network, where its gain counts: a bridge on the base's features keeps "
        "a fifth of that; one on the features of both networks keeps nine tenths."
    ),
    papers=(
        Paper(
            "Yun, Lee, Nam, Lee",
            2023,
            "Traversing Between Modes in Function Space for Fast Ensembling",
            "arXiv:2306.11304",
            handle="bridge-ensembles",
            adds="the bridge; BezierCurve gives the curve whose points it predicts",
        ),
    ),
)
def bridge(
    head: nn.Module,
    features: Callable[[Tensor], Tensor],
    target: Callable[[Tensor], Tensor],
    inputs: Callable[[int], Tensor],
    *,
    steps: int,
    rate: float = 1e-3,
    mixup: float = 0.4,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> list[float]:
    """Train ``head(features(x))`` to give the probabilities of softmax(``target(x)``); returns the loss of each step.

    ``target`` is the model at a point of a curve (``BezierCurve.move``), or any other, and returns logits (rows,
    classes); ``features`` are what one mode has computed anyway (the paper's type I), or those of both modes side by
    side (type II). ``inputs(step)`` gives rows x, of no labels: the loss is KL(target ‖ head), by Adam at ``rate``
    falling as a cosine. Each batch is mixed with itself in another order, λ x + (1 - λ) x', for λ of a Beta
    distribution with both parameters ``mixup``, since a model agrees with its ensemble on what it was trained on;
    ``mixup=0`` leaves x alone, as tokens need. Averaging softmaxes of the base and of its bridges is the ensemble, at
    one pass of the base and of each head. A step costs a pass of ``target``, one of ``features`` and one of the head
    with its gradient.

    The paper's bridges are the last blocks of a convolutional network, which ``head`` may be; nothing here knows.

    >>> one, other = nn.Linear(4, 3), nn.Linear(4, 3)
    >>> g = torch.Generator().manual_seed(0)
    >>> rows = torch.randn(64, 4, generator=g)
    >>> losses = bridge(nn.Linear(4, 3), lambda x: x, other, lambda step: rows, steps=200, rate=0.05, generator=g)
    >>> losses[-1] < 0.01 * losses[0]
    True
    """
    if not 0 <= mixup <= 1:
        raise ValueError(f"mixup={mixup} must be from 0, which mixes nothing, to 1")

    def loss(step: int) -> Tensor:
        x = inputs(step)
        if mixup:
            share = _beta(mixup, generator)
            x = share * x + (1 - share) * x[torch.randperm(len(x), generator=generator).to(x.device)]
        with torch.no_grad():
            known_features, wanted = features(x), target(x).log_softmax(-1)
        return F.kl_div(head(known_features).log_softmax(-1), wanted, reduction="batchmean", log_target=True)

    return descend(head.parameters(), loss, steps=steps, rate=rate, stage="bridge", callback=callback)


def _beta(shape: float, generator: Generator | None) -> float:
    """A number of the Beta distribution with both parameters ``shape``, from 0 to 1: by rejection of pairs."""
    while True:
        u, v = (torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / shape)).tolist()
        if 0 < u + v <= 1:
            return u / (u + v)


def _draw_heads(generator: Generator) -> dict[str, Any]:
    """A head that is to learn another of its kind, from inputs that are drawn at every step."""
    head, target = nn.Linear(4, 3), nn.Linear(4, 3)
    for layer in (head, target):
        layer.load_state_dict({n: torch.randn(p.shape, generator=generator) for n, p in layer.state_dict().items()})
    rows = torch.randn(64, 4, generator=generator)
    return {
        "head": head, "features": lambda x: x, "target": target, "inputs": lambda step: rows.roll(step, 0)[:32],
        "steps": 80, "rate": 0.1, "mixup": 0.4,
    }  # fmt: skip
