"""Predictions averaged over adapters, and the calibration of probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.methods.lora import LoRA


@method(
    "operation",
    example={"arguments": lambda g: _draw_adapters(g), "off": lambda mean, **given: _difference(mean, **given)},
    papers=(
        Paper(
            "Wang, Aitchison, Rudolph",
            2023,
            "LoRA ensembles for large language model fine-tuning",
            "arXiv:2310.00035",
            handle="lora-ensembles",
        ),
    ),
)
def ensemble(adapters: Adapters, names: Sequence[str], run: Callable[[], Tensor]) -> Tensor:
    """The mean of softmax(run()) over the adapters, each active alone; one pass of the model for each.

    ``run`` returns logits (..., classes). What was active before is active again afterwards, whatever happens.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    >>> from polyad.adapters import LoRA
    >>> host = Adapters(model)
    >>> _ = [host.attach(n, "*", LoRA, rank=1) for n in "ab"]
    >>> ensemble(host, ["a", "b"], lambda: model(torch.ones(4, 3))).shape
    torch.Size([4, 2])
    """
    if not names:
        raise ValueError("names is empty; name one adapter or more")
    before = dict(adapters.active)
    total: Tensor | None = None
    try:
        for name in names:
            adapters.activate(name)
            with torch.no_grad():
                probabilities = _check.finite("the softmax of run()", run().softmax(-1))
            total = probabilities if total is None else total + probabilities
    finally:
        adapters.activate(before)
    assert total is not None
    return total / len(names)


def calibration_figures(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> dict[str, float]:
    """``accuracy``, ``nll`` (nats a row), ``brier`` (over all classes) and ``ece`` of probabilities (rows, classes).

    The expected calibration error is Σ_b n_b / n · |accuracy_b - confidence_b| over ``bins`` of equal width of the
    largest probability.

    >>> calibration_figures(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]), bins=4)["ece"]
    0.25
    """
    _check.finite("probabilities", probabilities)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities {tuple(probabilities.shape)} and labels {tuple(labels.shape)} must be "
            "(rows, classes) and (rows,)"
        )
    if bins < 1 or not len(labels):
        raise ValueError(f"bins={bins} and {len(labels)} rows measure nothing; give one or more of each")
    classes = probabilities.shape[1]
    if labels.is_floating_point() or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels are of {labels.dtype}, from {labels.min()} to {labels.max()}; "
                         f"give the number of a class, from 0 to {classes - 1}")  # fmt: skip
    p = probabilities.double()
    if bool((p < 0).any()) or float((p.sum(1) - 1).abs().max()) > 1e-2:
        raise ValueError("the rows of probabilities do not sum to 1; give softmax(-1) of logits, as ensemble does")
    confidence, choice = p.max(-1)
    right = (choice == labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=p.dtype).index_add(0, place, right - confidence)
    of_label = p.gather(1, labels[:, None]).squeeze(1)
    return {
        "accuracy": float(right.mean()),
        "nll": float(-of_label.clamp_min(torch.finfo(p.dtype).tiny).log().mean()),
        "brier": float((p.square().sum(1) - 2 * of_label + 1).mean()),
        "ece": float(gaps.abs().sum()) / len(p),
    }


def _draw_adapters(generator: Generator) -> dict[str, Any]:
    """Two adapters of a small model, of which the second acts, and the logits of five rows."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4))
    adapters = Adapters(model)
    for name in ("a", "b"):
        adapters.attach(name, "*", LoRA, rank=1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    adapters.activate("b")
    rows = torch.randn(5, 3, generator=generator)
    return {"adapters": adapters, "names": ["a", "b"], "run": lambda: model(rows)}


def _difference(mean: Tensor, adapters: Adapters, names: Sequence[str], run: Callable[[], Tensor]) -> float:
    """The distance of a mean from that over models into which each adapter is merged, in millionths."""
    total = torch.zeros_like(mean)
    for name in names:
        adapters.activate(name)
        adapters.merge()
        total += run().detach().softmax(-1) / len(names)
        adapters.unmerge()
    return float((mean - total).abs().max()) / 1e-6
