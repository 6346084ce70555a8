"""A matrix as a train over pairs of row and column modes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose.trains.tt_svd import tt_svd
from polyad.formats import TrainMatrix
from polyad.formats.networks.train_matrix import equal_factors


@method(
    "decompose",
    makes=TrainMatrix,
    example={"x": (12, 8), "rank": 3},
    papers=(
        Paper(
            "Oseledets",
            2010,
            "Approximation of 2^d x 2^d matrices using tensor decomposition",
            "doi:10.1137/090757861",
        ),
    ),
)
def tt_matrix(
    x: Tensor,
    rank: int | Sequence[int] | None = None,
    *,
    tol: float | None = None,
    modes: tuple[Sequence[int], Sequence[int]] | None = None,
    batch: int = 0,
    generator: Generator | None = None,
) -> TrainMatrix:
    """A matrix as a tensor-train matrix (matrix product operator), of given bonds or within ``tol``.

    x has shape (*batch, out, in). ``modes`` says into which factors its rows and its columns are split, equally many;
    by default three of each, as equal as may be. The pairs of modes are then decomposed as
    ``tt_svd`` does: its errors, dtypes, costs and gradients hold here, after one copy of x.

    >>> w = torch.kron(torch.ones(4, 2), torch.kron(torch.eye(3), torch.ones(2, 5)))
    >>> fit = tt_matrix(w, tol=1e-6, modes=((4, 3, 2), (2, 3, 5)))
    >>> fit.rank, bool(torch.allclose(fit.to_dense(), w, atol=1e-5))
    ((1, 1), True)
    """
    _check.floating("x", x)
    _check.batch(batch, x, 2)
    if x.ndim != batch + 2:
        raise ValueError(f"x of shape {tuple(x.shape)} is not a matrix after batch={batch} leading dimensions")
    rows, columns = x.shape[batch:]
    out, into = modes or (equal_factors(rows, 3), equal_factors(columns, 3))
    if math.prod(out) != rows or math.prod(into) != columns or len(out) != len(into):
        raise ValueError(
            f"modes={(tuple(out), tuple(into))} do not split the {rows} rows and {columns} columns of x into equally "
            "many factors"
        )
    n = len(out)
    order = [batch + i + side * n for i in range(n) for side in (0, 1)]
    paired = x.reshape(*x.shape[:batch], *out, *into).permute(*range(batch), *order)
    sizes = [o * i for o, i in zip(out, into, strict=True)]
    train = tt_svd(paired.reshape(*x.shape[:batch], *sizes), rank, tol=tol, batch=batch, generator=generator)
    return TrainMatrix.from_train(train, out, into)
