"""The truncated SVD of a weight whose columns are weighed by the size of their inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import LowRank
from polyad.linalg.metric import tails
from polyad.statistics import Moments, required

ASVD = Paper(
    "Yuan, Shang, Song, Wu, Yan, Sun", 2023,
    "ASVD: Activation-aware Singular Value Decomposition for Compressing Large Language Models", "arXiv:2312.05821",
    handle="asvd", adds="columns scaled by a power of their inputs' size before the SVD, and scaled back after it",
)  # fmt: skip


def input_sizes(stats: Moments | None, power: float = 0.5) -> Tensor:
    """The largest size of every input to a power, of shape (in,); float64."""
    if stats is None:
        raise ValueError("asvd reads the layer's inputs on calibration text; give calibrate='stdlib' or a file")
    return _check.finite("the peak of the inputs", required(stats.peak, "peak")).double() ** power


def metric(stats: Moments | None) -> Tensor:
    """The matrix M for which the method minimises tr(D M Dᵀ), with D the difference from the weight; (in, in)."""
    return input_sizes(stats).square().diag()


def scaled_spectrum(weight: Tensor, stats: Moments | None, *, power: float = 0.5) -> Tensor:
    """The squared error of the scaled weight that each rank 0, 1, … leaves; float64."""
    return tails(torch.linalg.svdvals(weight.double() * input_sizes(stats, power)).square())


@method(
    "factor",
    makes=LowRank,
    papers=(ASVD,),
    needs={"peak"},
    curve=scaled_spectrum,
    example={"rank": 2, "metric": metric},
)
def asvd(weight: Tensor, stats: Moments | None, rank: int, *, power: float = 0.5) -> LowRank:
    """``W ≈ (W S)_rank S⁻¹`` with S the diagonal of the largest size of each input, to ``power``.

    weight of shape (out, in), left (out, rank) and right (rank, in) in its dtype, each with the root of the singular
    values; computed in float64. Inputs that are always zero are left uncorrected. Cost: O(out in min(out, in)). The
    paper's search for the ranks of the layers is left to budgets. Raises where no statistics are given.

    >>> weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> asvd(weight, Moments(100, peak=torch.tensor([1.0, 100.0])), 1).to_dense().abs().round(decimals=4).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    _check.weight(weight, rank)
    sizes = input_sizes(stats, power)
    sizes = sizes / sizes.max().clamp_min(torch.finfo(torch.float64).tiny)
    inverse = torch.where(sizes > 0, sizes, 1).reciprocal() * (sizes > 0)
    u, s, vh = torch.linalg.svd(weight.double() * sizes, full_matrices=False)
    root = s[:rank].sqrt()
    return LowRank((u[:, :rank] * root).to(weight.dtype), (root[:, None] * vh[:rank] * inverse).to(weight.dtype))
