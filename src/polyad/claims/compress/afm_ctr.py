"""Feature-space truncation of a click-through model against weight-space SVD. About half a minute on two cores.

The paper's data sets cannot be had; the click-through rows are drawn here, with interactions between fields planted.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad._callback import Callback
from polyad.claims.record import Result
from polyad.compress import lord
from polyad.compress.draft import shifted_bias
from polyad.decompose import svd
from polyad.formats import LowRank
from polyad.layers import Linear
from polyad.models import Moments, collect, replace

MINUTES = 1
FIELDS, VALUES, WIDTH, HIDDEN = 8, 30, 8, 64
RANKS = (4, 6, 8, 12, 16)


def rows(count: int, truth: list[Tensor], generator: Generator) -> tuple[Tensor, Tensor]:
    """Category indices (count, fields) and clicks (count,), whose log-odds hold planted pairwise interactions."""
    x = torch.randint(0, VALUES, (count, FIELDS), generator=generator)
    chosen = torch.stack([table[x[:, field]] for field, table in enumerate(truth)], 1)  # (count, fields, 4)
    odds = (chosen.sum(1).square() - chosen.square().sum(1)).sum(1) * 0.25
    odds = odds - odds.mean()
    return x, (torch.rand(count, generator=generator) < odds.sigmoid()).float()


class Clicks(nn.Module):
    """Embeddings of the fields side by side, and a three-layer perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.Embedding(FIELDS * VALUES, WIDTH)
        self.first = nn.Linear(FIELDS * WIDTH, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.third = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.tables(x + torch.arange(FIELDS) * VALUES).flatten(1)
        return self.third(self.second(self.first(flat).relu()).relu()).squeeze(1)


def auc(scores: Tensor, clicks: Tensor) -> float:
    """The area under the receiver operating characteristic."""
    order = scores.argsort()
    ranks = torch.empty_like(scores, dtype=torch.float64)
    ranks[order] = torch.arange(1, len(scores) + 1, dtype=torch.float64)
    positive = clicks.bool()
    n, p = int((~positive).sum()), int(positive.sum())
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (n * p))


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Truncating output features keeps a higher AUC than truncating weights, at every equal rank."""
    generator = Generator().manual_seed(0)
    torch.manual_seed(0)
    truth = [torch.randn(VALUES, 4, generator=generator) for _ in range(FIELDS)]
    x, y = rows(40_000, truth, generator)
    held_out, clicks = rows(20_000, truth, generator)
    model = Clicks()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(6):
        for batch in torch.randperm(len(x), generator=generator).split(256):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model(x[batch]), y[batch]).backward()
            optimiser.step()
    layers = ("first", "second")
    stats = collect(model, {name: {"second", "mean"} for name in layers}, [x[:8192]])
    with torch.no_grad():
        whole = auc(model(held_out), clicks)
        areas = {
            method: {r: _cut(model, layers, stats, method, r, held_out, clicks) for r in RANKS}
            for method in ("afm", "svd")
        }
    least = min(areas["afm"][r] - areas["svd"][r] for r in RANKS)
    digest = hashlib.sha256(torch.cat((held_out.flatten(), clicks.long())).numpy().tobytes()).hexdigest()
    return Result(
        "on a click-through model, truncating output features (with a corrected bias) has at least the AUC of "
        "truncating weights at every rank; least difference",
        least, ">=", 0.0, {"planted clicks, held out": digest}, 0, {"auc": areas, "auc, uncompressed": whole},
    )  # fmt: skip


def _cut(
    model: Clicks, layers: tuple[str, ...], stats: dict[str, Moments], method: str, rank: int, x: Tensor, y: Tensor
) -> float:
    replacements: dict[str, nn.Module] = {}
    for name in layers:
        layer: Any = model.get_submodule(name)
        weight, mean = layer.weight.detach(), stats[name].mean
        assert mean is not None
        format: LowRank = lord(weight, stats[name], rank, centre=True) if method == "afm" else svd(weight, rank)
        bias = shifted_bias(layer.bias, weight, format, mean) if method == "afm" else layer.bias.detach()
        replacements[name] = Linear(format, bias)
    undo = replace(model, replacements)
    try:
        return auc(model(x), y)
    finally:
        undo()
