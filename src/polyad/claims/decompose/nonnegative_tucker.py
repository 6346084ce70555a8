"""Updates of non-negative Tucker tensors by components against multiplicative ones, at three times the sweeps.

Under a minute. Tensors of uniform cores and factors, as the paper's synthetic ones, and such without structure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polyad._callback import Callback
from polyad.claims._data_hash import sha
from polyad.claims.record import Line, Outcome, mean_and_error
from polyad.decompose import nonnegative_tucker
from polyad.formats import Tucker

MINUTES = 1
SEEDS = range(100, 124)  # apart from those with which the number of sweeps was chosen
SHAPE, RANK = (16, 15, 14), (4, 3, 3)
SWEEPS = {"hals": 100, "mu": 300}  # a sweep by components takes two to three times as long


def tucker_tensor(seed: int) -> Tensor:
    """A non-negative Tucker tensor."""
    generator = torch.Generator().manual_seed(seed)
    draw = [
        torch.rand(size, generator=generator, dtype=torch.float64) for size in (RANK, *zip(SHAPE, RANK, strict=True))
    ]
    return Tucker(draw[0], tuple(draw[1:])).to_dense()


def uniform_tensor(seed: int) -> Tensor:
    """Uniform entries, of which no Tucker tensor of these ranks explains much."""
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error_ratio(x: Tensor, seed: int) -> float:
    """The relative error by components over that by multiplications, from the same start."""
    errors = {}
    for update, sweeps in SWEEPS.items():
        start = torch.Generator().manual_seed(seed)
        fit = nonnegative_tucker(x, RANK, update=update, max_iter=sweeps, stop=0, generator=start)  # pyright: ignore[reportArgumentType]
        errors[update] = float((fit.to_dense() - x).norm() / x.norm())
    return errors["hals"] / errors["mu"]


def claim(callback: Callback | None = None) -> Outcome:
    """The ratio of the errors, and the same where no tensor of these ranks is near."""
    ratios: list[float] = []
    for done, seed in enumerate(SEEDS, 1):
        ratios.append(error_ratio(tucker_tensor(seed), seed))
        if callback is not None:
            callback(done, len(SEEDS), {"ratio": ratios[-1]})
    line = Line(
        assertion="updates by components leave at most 0.8 of the error that multiplicative updates leave after "
        "three times as many sweeps from the same start, on planted non-negative Tucker tensors",
        **mean_and_error(ratios),
        relation="<=",
        bound=0.8,
        seeds=len(SEEDS),
        data={"planted": sha(tucker_tensor(seed) for seed in SEEDS)},
        rival="multiplicative updates of factors and core, eight of each for one product with the tensor",
        control="tensors without structure, whose ratios are in the details, gain nothing",
        tolerance=0.05,
    )
    other_ratios = [error_ratio(uniform_tensor(seed), seed) for seed in SEEDS]
    return Outcome([line], {"ratios": ratios, "without structure": other_ratios})
