"""The smallest rank that a tolerance needs, and the errors that decide it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from polyad.decompose.alternating.mttkrp import residual
from polyad.formats import CP
from polyad.linalg.scaling import double


def search_rank(
    solve: Callable[[int], CP], whole: Callable[[], CP], limit: int, tol: float, error: Callable[[CP], float]
) -> CP:
    """Search the smallest rank whose error is at most ``tol``; ``whole`` makes the exact sum, of rank ``limit``."""
    low, high, best = 0, limit, None
    if tol == 0:  # no rounded result would do
        return whole()
    rank = 1
    while rank < high:
        model = solve(rank)
        if error(model) <= tol:
            high, best = rank, model
            break
        low, rank = rank, max(rank + 1, rank * 3 // 2)
    while high - low > 1:
        middle = (low + high) // 2
        model = solve(middle)
        if error(model) <= tol:
            high, best = middle, model
        else:
            low = middle
    return whole() if best is None else best


def rounded_error(x: Tensor, model: CP, norm: Tensor, scale: Tensor) -> float:
    """The largest relative Frobenius error of a batch, of the numbers as they were rounded to the result's dtype."""
    rows = [factor.reshape(len(x), 1, *factor.shape[-2:]).mT.double() for factor in model.factors]
    assert model.weights is not None
    rows[0] = rows[0] * (model.weights.double().reshape(len(x), 1, -1, 1) / (norm * scale).view(-1, 1, 1, 1))
    return float(residual(x, rows, norm).max().sqrt())


def dense_error(x: Tensor, model: CP, scale: Tensor | None = None, mask: Tensor | None = None) -> float:
    """The largest relative Frobenius error of tensors scale x (b, …), over what a mask shows; dense, in float64."""
    ones = (1,) * (x.ndim - 1)
    size = x.abs().flatten(1).amax(1).double()
    size = size.where(size > 0, 1).view(-1, *ones)
    unit = double(x) / size
    dense = double(model.to_dense()).reshape(x.shape) / size
    rest = (dense if scale is None else dense / scale.view(-1, *ones)) - unit
    if mask is not None:
        rest = rest * mask.reshape(x.shape)
    norms = unit.flatten(1).norm(dim=1)
    return float((rest.flatten(1).norm(dim=1) / norms.where(norms > 0, 1)).max())
