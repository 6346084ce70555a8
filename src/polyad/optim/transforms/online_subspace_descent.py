"""Online subspace descent: Adam in a basis that descends as well."""

from __future__ import annotations

from polyad._card import method
from polyad.optim.projected import Projected
from polyad.optim.subspaces.online_pca import OSD, OnlinePCA
from polyad.optim.transforms.adam import Adam


@method("transform", example={"rank": 2, "rate": 0.05, "scale": 0, "lr": 0.5}, papers=(OSD,))
def online_subspace_descent(
    rank: int, *, rate: float = 5e-3, scale: float = 0.25, betas: tuple[float, float] = (0.9, 0.999)
) -> Projected:
    """Adam in a basis that takes a step of online principal component analysis with every gradient.

    The moments stay as they are while the basis moves under them, as in the paper. State: 4 (3 n rank + 2 rank m)
    bytes a matrix (n, m), n ≤ m: the basis has moments of its own. Each step costs 10 n m rank operations.

    >>> online_subspace_descent(rank=4).interval
    1
    """
    return Projected(Adam(betas), OnlinePCA(rank, rate), 1, scale, carry=False)
