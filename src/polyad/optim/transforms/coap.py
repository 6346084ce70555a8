"""COAP: Adam in a basis that keeps in line with its own moment."""

from __future__ import annotations

from polyad._card import method
from polyad.optim.projected import Projected
from polyad.optim.subspaces.correlation_aware import COAP, CorrelationAware
from polyad.optim.transforms.adam import Adam


@method("transform", example={"rank": 2, "interval": 5, "scale": 0, "lr": 0.5}, papers=(COAP,))
def coap(
    rank: int,
    *,
    interval: int = 32,
    recalibrate: int = 5,
    scale: float = 0.25,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Projected:
    """Adam in a basis that moves every ``interval`` steps and is recalibrated at every ``recalibrate``-th move.

    The moments stay as they are, as by default in the authors' code. Convolutions count as matrices here; the authors
    project their sides one by one. State: 4 (n rank + 2 rank m) bytes a matrix (n, m), n ≤ m.

    >>> coap(rank=4).subspace.recalibrate
    5
    """
    return Projected(Adam(betas), CorrelationAware(rank, recalibrate), interval, scale, carry=False)
