"""The free energy of the two-dimensional Ising model by coarse graining, against Onsager. Some seconds."""

from __future__ import annotations

import hashlib
import math

import torch

from polyad._callback import Callback
from polyad.claims.record import Result
from polyad.decompose import trg_ising

MINUTES = 1
BETAS = (0.3, math.log(1 + math.sqrt(2)) / 2, 0.5)
RANKS = (4, 8, 16)


def onsager(beta: float, points: int = 4000) -> float:
    """ln Z per site of the infinite lattice: the midpoint rule on Onsager's integral."""
    k = 2 * math.sinh(2 * beta) / math.cosh(2 * beta) ** 2
    angle = (torch.arange(points, dtype=torch.float64) + 0.5) * math.pi / 2 / points
    inside = torch.log((1 + torch.sqrt(1 - (k * angle.sin()) ** 2)) / 2).mean()
    return math.log(2 * math.cosh(2 * beta)) + float(inside) / 2


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Off criticality the relative error at bond 16 is at most 1e-5."""
    errors = {
        f"{beta:.6f}": {rank: abs(trg_ising(beta, rank) / onsager(beta) - 1) for rank in RANKS} for beta in BETAS
    }
    off = max(errors[f"{beta:.6f}"][16] for beta in (0.3, 0.5))
    digest = hashlib.sha256(repr(BETAS).encode()).hexdigest()
    return Result(
        "off criticality (beta 0.3 and 0.5), coarse graining at bond 16 has a relative error of ln Z per site of at "
        "most 1e-5 against Onsager",
        off, "<=", 1e-5, {"inverse temperatures": digest}, 0, {"errors by beta and bond": errors},
    )  # fmt: skip
