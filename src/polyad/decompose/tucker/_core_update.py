"""Non-negative least squares for the core of a Tucker tensor whose factors are given."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.linalg import mode_product

_STEPS = {"hals": 10, "mu": 8}


def renew_core(core: Tensor, projected: Tensor, factors: list[Tensor], update: str) -> tuple[Tensor, Tensor]:
    """A non-negative core no worse than ``core`` (b, r₁, …), and the squared errors (b,) of tensors of norm 1.

    ``projected`` is the tensor times all transposed factors (b, I_n, r_n). "hals" takes accelerated projected
    gradient steps, "mu" multiplies by the quotient of what pulls up and what pulls down.
    """
    grams = [factor.mT @ factor for factor in factors]

    def pull(core: Tensor) -> Tensor:
        for mode, gram in enumerate(grams):
            core = mode_product(core, gram, mode, 1)
        return core

    if update == "mu":
        tiny, up = torch.finfo(core.dtype).tiny, projected.clamp(min=0)
        for _ in range(_STEPS[update]):
            core = core * (up / pull(core).clamp(min=tiny))
        return core, _error(core, pull(core), projected)
    steepest = torch.stack([torch.linalg.eigvalsh(gram)[:, -1] for gram in grams]).prod(0)
    step = torch.where(steepest > 0, 1 / steepest, 0).view(-1, *[1] * len(grams))
    best, least = core, _error(core, pull(core), projected)
    ahead, momentum = core, 1.0
    for _ in range(_STEPS[update]):
        new = (ahead - step * (pull(ahead) - projected)).clamp(min=0)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, momentum = new + (momentum - 1) / following * (new - core), following
        core, error = new, _error(new, pull(new), projected)
        best = torch.where((error < least).view(step.shape), new, best)
        least = torch.minimum(error, least)
    return best, least


def _error(core: Tensor, pulled: Tensor, projected: Tensor) -> Tensor:
    inner = (core * projected).flatten(1).sum(1, dtype=torch.float64)
    return (1 - 2 * inner + (core * pulled).flatten(1).sum(1, dtype=torch.float64)).clamp(min=0)
