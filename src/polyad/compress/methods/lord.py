"""Output-aware factorisation: the principal subspace of a layer's outputs."""

from __future__ import annotations

from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import LowRank
from polyad.linalg.metric import principal, tails
from polyad.statistics import Moments, required

LORD = Paper(
    "Kaushal, Vaidhya, Rish", 2023,
    "LORD: Low Rank Decomposition Of Monolingual Code LLMs For One-Shot Compression", "arXiv:2309.14021",
    handle="lord", adds="the method: eigenvectors of the output covariance, one shot, no fine-tuning",
)  # fmt: skip
AFM = Paper(
    "Yu, Fu, Ding, Zhou, Wu", 2024, "Unified Low-rank Compression Framework for Click-through Rate Prediction",
    "arXiv:2405.18146", handle="afm-ctr",
    adds="centred outputs with a corrected bias, applied to embeddings and MLP layers (atomic feature mimicking)",
)  # fmt: skip


def output_moment(weight: Tensor, stats: Moments | None, centre: bool) -> Tensor:
    """E[y yᵀ] of the outputs y = W x, or their covariance; shape (out, out)."""
    if stats is None:
        raise ValueError("lord reads the layer's inputs on calibration text; give calibrate='stdlib' or a file")
    inputs = stats.covariance() if centre else required(stats.second, "second")
    return weight @ inputs.to(weight.dtype) @ weight.mT


def spectrum(weight: Tensor, stats: Moments | None, *, centre: bool = False) -> Tensor:
    """Squared output error that each rank 0, 1, …, out leaves; float64."""
    return tails(principal(output_moment(weight, stats, centre))[0])


@method("factor", makes=LowRank, papers=(LORD, AFM), needs={"second"}, curve=spectrum, example={"rank": 2})
def lord(weight: Tensor, stats: Moments | None, rank: int, *, centre: bool = False) -> LowRank:
    """``W ≈ V (Vᵀ W)``, V the top eigenvectors of the layer's output moment on calibration data.

    Minimises E|(W - W') x|² over all W' of this rank, so it equals the whitened SVD and needs no inverse. weight
    of shape (out, in), left (out, rank) orthonormal, right (rank, in). With ``centre`` the covariance takes the
    moment's place, which is optimal where the layer's bias can absorb the mean. Cost: O(out³ + out in²). Raises
    where no statistics are given or the rank exceeds min(out, in).

    >>> import torch
    >>> weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> busy = Moments(100, second=torch.diag(torch.tensor([0.01, 1.0])))
    >>> lord(weight, busy, 1).to_dense().abs().tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    _check.finite("weight", weight)
    _check.rank(rank, min(weight.shape), f"the smaller side of the weight of shape {tuple(weight.shape)}")
    basis = principal(output_moment(weight, stats, centre))[1][:, :rank]
    return LowRank(basis.contiguous(), basis.mT @ weight)
