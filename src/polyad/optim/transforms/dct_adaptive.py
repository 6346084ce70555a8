"""Adam on those columns of the cosine transform that each gradient chooses."""

from __future__ import annotations

from polyad._card import method
from polyad.optim.projected import Projected
from polyad.optim.subspaces.cosine_columns import DCT, CosineColumns
from polyad.optim.transforms.adam import Adam


@method("transform", example={"rank": 3, "interval": 5, "scale": 0, "lr": 0.5}, papers=(DCT,))
def dct_adaptive(
    rank: int, *, interval: int = 1, scale: float = 0.25, betas: tuple[float, float] = (0.9, 0.999)
) -> Projected:
    """Adam in the ``rank`` columns of the cosine transform with the largest coordinates, chosen every ``interval``
    steps.

    Moments go with their column, which the authors' code leaves to an option; a column that enters has none yet, so
    that its first step is up to (1 - β₁) / √(1 - β₂) = 3.2 times a usual one. State: 8 rank m bytes a matrix (n, m),
    n ≤ m, and 8 rank for the places of the columns.

    >>> dct_adaptive(rank=4).subspace
    CosineColumns(rank=4)
    """
    return Projected(Adam(betas), CosineColumns(rank), interval, scale)
