"""Low-rank compensation of a compressed layer in the eigenspace of its inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import LowRank
from polyad.linalg.metric import roots, tails
from polyad.statistics import Moments, required

EORA = Paper(
    "Liu and others", 2024,
    "EoRA: Training-free Compensation for Compressed LLM with Eigenspace Low-Rank Approximation",
    "arXiv:2410.21271", handle="eora", adds="the method, applied to what any earlier step left over",
)  # fmt: skip


def _second(stats: Moments | None) -> Tensor:
    if stats is None:
        raise ValueError("eora reads the layer's inputs on calibration text; give calibrate='stdlib' or a file")
    return required(stats.second, "second")


def residual_spectrum(weight: Tensor, stats: Moments | None) -> Tensor:
    """Squared output error that each rank 0, 1, … of the compensation leaves; float64."""
    root, _ = roots(_second(stats).to(weight.dtype))
    return tails(torch.linalg.svdvals(weight @ root).square())


@method("factor", makes=LowRank, papers=(EORA,), needs={"second"}, curve=residual_spectrum, example={"rank": 2})
def eora(weight: Tensor, stats: Moments | None, rank: int) -> LowRank:
    """The best rank-r matrix B A for E|(ΔW - B A) x|², with ΔW what compression took from a weight.

    In a recipe, ``weight`` is the residual of the steps before it, and the layer becomes the sum of what they made
    and of this. ΔW of shape (out, in) is carried into the eigenspace of E[x xᵀ] = Q Λ Qᵀ, truncated there by SVD
    and carried back: left (out, rank), right (rank, in). Directions that the calibration data never takes are left
    uncorrected. Cost: O(in³ + out in min(out, in)). Raises where no statistics are given.

    >>> residual = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> busy = Moments(100, second=torch.diag(torch.tensor([0.01, 1.0])))
    >>> eora(residual, busy, 1).to_dense().abs().tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    _check.finite("weight", weight)
    _check.rank(rank, min(weight.shape), f"the smaller side of the weight of shape {tuple(weight.shape)}")
    root, inverse = roots(_second(stats).to(weight.dtype))
    u, s, vh = torch.linalg.svd(weight @ root, full_matrices=False)
    return LowRank(u[:, :rank] * s[:rank], vh[:rank] @ inverse)
