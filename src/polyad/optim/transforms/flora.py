"""Flora: Adam on random projections of which a seed is kept."""

from __future__ import annotations

from polyad._card import Paper, method
from polyad.optim.projected import Projected
from polyad.optim.subspaces.seeded_normal import SeededNormal
from polyad.optim.transforms.adam import Adam

FLORA = Paper(
    "Hao, Cao, Mou",
    2024,
    "Flora: Low-Rank Adapters Are Secretly Gradient Compressors",
    "arXiv:2402.03293",
    handle="flora-grad",
    adds="projections drawn anew from the next seed, to which the first moment is carried over",
)


@method("transform", example={"rank": 3, "interval": 50, "scale": 0, "lr": 0.1}, papers=(FLORA,))
def flora(
    rank: int, *, interval: int = 1000, scale: float = 0.25, betas: tuple[float, float] = (0.9, 0.999)
) -> Projected:
    """Adam on normal projections of the gradient, drawn from a seed that moves on every ``interval`` steps.

    The authors' code has Adafactor below, of which the fresh gradient enters at full rank; with Adam all of the
    update is of low rank. Each move makes the carried moment √(n / rank) times as long and leaves a share rank / n
    of it in line, so that intervals near 1 / (1 - β₁) do harm. State: 8 rank m bytes a matrix (n, m), n ≤ m, and no
    basis.

    >>> flora(rank=4).interval
    1000
    """
    return Projected(Adam(betas), SeededNormal(rank), interval, scale)
