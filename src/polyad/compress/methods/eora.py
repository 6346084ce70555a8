"""Low-rank compensation of a compressed layer in the eigenspace of its inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import LowRank
from polyad.linalg.metric import roots, tails
from polyad.statistics import Moments, input_moment

EORA = Paper(
    "Liu and others", 2024,
    "EoRA: Training-free Compensation for Compressed LLM with Eigenspace Low-Rank Approximation",
    "arXiv:2410.21271", handle="eora", adds="the method, applied to what any earlier step left over",
)  # fmt: skip


def _roots(weight: Tensor, stats: Moments | None) -> tuple[Tensor, Tensor, Tensor]:
    """The weight in float32 or better, and the root of its inputs' second moment with its inverse."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return wide, *roots(input_moment(stats, weight.shape[1], "eora").to(wide.dtype))


def residual_spectrum(weight: Tensor, stats: Moments | None) -> Tensor:
    """Squared output error that each rank 0, 1, … of the compensation leaves; float64."""
    wide, root, _ = _roots(weight, stats)
    return tails(torch.linalg.svdvals(wide @ root).double().square())


def bytes_of_eora(shape: tuple[int, int]) -> int:
    """Bytes: the weight's products, and the moment of the inputs with its eigenvectors and both roots."""
    out, inner = shape
    return 8 * (3 * out * inner + 6 * inner**2)


@method(
    "factor", makes=LowRank, papers=(EORA,), needs={"second"}, curve=residual_spectrum, example={"rank": 2},
    holds=bytes_of_eora,
)  # fmt: skip
def eora(weight: Tensor, stats: Moments | None, rank: int) -> LowRank:
    """The best rank-r matrix B A for E|(ΔW - B A) x|², with ΔW what compression took from a weight.

    In a recipe, ``weight`` is the residual of the steps before it, and the layer becomes the sum of what they made
    and of this. ΔW of shape (out, in) is carried into the eigenspace of E[x xᵀ] = Q Λ Qᵀ, truncated there by SVD
    and carried back: left (out, rank), right (rank, in), both in the weight's dtype; half precision is computed in
    float32. Directions that the calibration data never takes are left uncorrected. Cost: O(in³ + out in
    min(out, in)). Raises where no statistics are given.

    >>> residual = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> busy = Moments(100, second=torch.diag(torch.tensor([0.01, 1.0])))
    >>> eora(residual, busy, 1).to_dense().abs().tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    _check.weight(weight, rank)
    wide, root, inverse = _roots(weight, stats)
    u, s, vh = torch.linalg.svd(wide @ root, full_matrices=False)
    right = vh[:rank] @ inverse
    level = _level(s[:rank], right)
    return LowRank((u[:, :rank] * (s[:rank] / level)).to(weight.dtype), (right * level[:, None]).to(weight.dtype))


def _level(s: Tensor, right: Tensor) -> Tensor:
    """Powers of two that bring columns of size s and rows to about one size, so that both fit into half precision."""
    norms = right.norm(dim=1)
    return torch.where((s > 0) & (norms > 0), s / norms, 1).sqrt().log2().round().exp2()
