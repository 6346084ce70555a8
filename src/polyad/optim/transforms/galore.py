"""GaLore: Adam on the leading singular vectors of each gradient."""

from __future__ import annotations

from polyad._card import Paper, method
from polyad.optim.projected import Projected
from polyad.optim.subspaces.singular_vectors import SingularVectors
from polyad.optim.transforms.adam import Adam

GALORE = Paper(
    "Zhao, Zhang, Chen, Wang, Anandkumar, Tian",
    2024,
    "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
    "arXiv:2403.03507",
)


@method("transform", example={"rank": 2, "interval": 5, "lr": 0.5, "scale": 0}, papers=(GALORE,))
def galore(
    rank: int, *, interval: int = 200, scale: float = 0.25, betas: tuple[float, float] = (0.9, 0.999)
) -> Projected:
    """Adam in the leading singular vectors of the gradient, taken anew every ``interval`` steps.

    The moments stay where they are when the vectors change, as in the authors' code; ``ProjectedAdam`` carries them
    over and is cheaper. State: 4 (n rank + 2 rank m) bytes a matrix (n, m), n ≤ m; a refresh is a truncated SVD.

    >>> galore(rank=4).subspace
    SingularVectors(rank=4)
    """
    return Projected(Adam(betas), SingularVectors(rank), interval, scale, carry=False)
