"""Output-aware factorisation: the principal subspace of a layer's outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import LowRank
from polyad.linalg.metric import PART, moment_product, principal, roots, tails
from polyad.statistics import Moments, input_moment, required

LORD = Paper(
    "Kaushal, Vaidhya, Rish", 2023,
    "LORD: Low Rank Decomposition Of Monolingual Code LLMs For One-Shot Compression", "arXiv:2309.14021",
    handle="lord", adds="the method: eigenvectors of the output covariance, one shot, no fine-tuning",
)  # fmt: skip
AFM = Paper(
    "Yu, Fu, Ding, Zhou, Wu", 2024, "Unified Low-rank Compression Framework for Click-through Rate Prediction",
    "arXiv:2405.18146", handle="afm-ctr",
    adds="centred outputs with a corrected bias (atomic feature mimicking), here for linear layers; the paper's "
    "compression of embedding tables and of a whole click-through model is not here",
)  # fmt: skip


def principal_outputs(weight: Tensor, stats: Moments | None, centre: bool) -> tuple[Tensor, Tensor]:
    """Squared sizes of the principal outputs y = W x, largest first, and their directions as columns; float64.

    Those of E[y yᵀ] or of the covariance, found on the shorter side of the weight.
    """
    second, wide = input_moment(stats, weight.shape[1], "lord"), weight.double()
    if centre and stats is not None:
        _check.finite("the mean of the inputs", required(stats.mean, "mean"))
        second = stats.covariance()
    if weight.shape[0] <= weight.shape[1]:
        return principal(moment_product(wide, second) @ wide.mT)
    directions, sizes, _ = torch.linalg.svd(wide @ roots(second.double())[0], full_matrices=False)
    return sizes.square(), directions


def output_spectrum(weight: Tensor, stats: Moments | None, *, centre: bool = False) -> Tensor:
    """Squared output error that each rank 0, 1, …, min(out, in) leaves; float64."""
    return tails(principal_outputs(weight, stats, centre)[0])


def bytes_of_lord(shape: tuple[int, int], *, centre: bool = False) -> int:
    """Bytes: the products and their directions, the shorter side's moment solved, parts of that of the inputs."""
    out, inner = shape
    moment = inner**2 if centre else min(inner**2, 2 * PART)
    return 8 * (5 * out * inner + 6 * min(shape) ** 2 + moment)


@method(
    "factor",
    makes=LowRank,
    papers=(LORD, AFM),
    needs={"second"},
    curve=output_spectrum,
    holds=bytes_of_lord,
    example={"rank": 2},
    instead=(
        "With `centre=True` at the lowest ranks of a click-through model's layers: `svd` of the weight, which"
        " keeps a higher area under the curve there."
    ),
)
def lord(weight: Tensor, stats: Moments | None, rank: int, *, centre: bool = False) -> LowRank:
    """``W ≈ V (Vᵀ W)``, V the top eigenvectors of the layer's output moment on calibration data.

    Minimises E|(W - W') x|² over all W' of this rank, so it equals the whitened SVD and needs no inverse. weight
    of shape (out, in), left (out, rank) orthonormal, right (rank, in). With ``centre`` the covariance takes the
    moment's place, which is optimal where the layer's bias can absorb the mean: y ≈ V Vᵀ (y - E y) + E y, the atomic
    feature mimicking of click-through models' MLP layers. Their embedding tables are left alone. The factors have
    the weight's dtype; the directions are found in float64. Cost: O(out³ + out in²) for wide weights, O(out in² +
    in³) for tall ones. Raises where no statistics are given or the rank exceeds min(out, in).

    >>> import torch
    >>> weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> busy = Moments(100, second=torch.diag(torch.tensor([0.01, 1.0])))
    >>> lord(weight, busy, 1).to_dense().abs().tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    _check.weight(weight, rank)
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    basis = principal_outputs(weight, stats, centre)[1][:, :rank].to(wide.dtype)
    return LowRank(basis.contiguous().to(weight.dtype), (basis.mT @ wide).to(weight.dtype))
