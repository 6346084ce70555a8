"""ASVD against the plain SVD on layers whose inputs differ in size. Seconds on one core."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.claims._data_hash import sha
from polyad.claims.record import Line, Outcome, mean_and_error
from polyad.compress import asvd
from polyad.decompose import svd
from polyad.statistics import Moments

MINUTES = 1
SEEDS, SIDE, RANK, ROWS = 6, 48, 12, 400


def layer(seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """A weight, and inputs whose sizes differ by up to ``10 ** spread``."""
    generator = Generator().manual_seed(seed)
    weight, x = torch.randn(SIDE, SIDE, generator=generator), torch.randn(ROWS, SIDE, generator=generator)
    return weight, x * torch.logspace(0, spread, SIDE)


def error_ratio(seed: int, spread: float) -> float:
    """The squared error of the outputs with ASVD, over that with the plain SVD."""
    weight, x = layer(seed, spread)
    stats = Moments(ROWS, peak=x.abs().amax(0))
    errors = [
        (x @ (weight - low.to_dense()).mT).square().sum() for low in (asvd(weight, stats, RANK), svd(weight, RANK))
    ]
    return float(errors[0] / errors[1])


def claim(callback: Callback | None = None) -> Outcome:  # noqa: ARG001 - too short to report progress
    """The ratio of the errors, and the same where all inputs are of one size."""
    ratios = [error_ratio(seed, 2.0) for seed in range(SEEDS)]
    line = Line(
        assertion="where inputs differ a hundredfold in size, scaling by them halves the plain SVD's output error",
        **mean_and_error(ratios),
        relation="<=",
        bound=0.5,
        seeds=SEEDS,
        data={"scaled layers": sha(tensor for seed in range(SEEDS) for tensor in layer(seed, 2.0))},
        rival="plain SVD of the same rank",
        control="inputs of one size, whose ratios are in the details, gain nothing",
    )
    return Outcome([line], {"ratios": ratios, "of one size": [error_ratio(seed, 0.0) for seed in range(SEEDS)]})
