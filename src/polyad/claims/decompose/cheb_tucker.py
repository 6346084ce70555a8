"""Chebyshev-Tucker fits of the long-range part of Newton potentials of many particles. About a minute on one core."""

from __future__ import annotations

import hashlib
import math
import time

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.claims.record import Result
from polyad.decompose import chebyshev_tucker, hooi

MINUTES = 1
PARTICLES = (50, 200, 500)
DEGREES = (10, 20, 30, 40)
GRID, TOL, WIDEST = 96, 1e-5, 5.0


def exponents() -> tuple[Tensor, Tensor]:
    """Weights and rates of Gaussians whose sum is the long-range part of 1 / r.

    1 / r is 2 / √π times the integral of exp(s - r² exp(2 s)) over s; the trapezoidal rule with step 0.3 makes a sum
    of it, and the terms of rates exp(s) up to ``WIDEST`` (in a box of side 2) are the long-range part.
    """
    s = torch.arange(-20.0, math.log(WIDEST) / 0.3, dtype=torch.float64) * 0.3
    return 2 / math.pi**0.5 * 0.3 * s.exp(), s.exp()


class Potential:
    """The long-range potential of particles at random in the box [-1, 1]³ with charges ±1, on product grids."""

    def __init__(self, count: int) -> None:
        generator = Generator().manual_seed(count)
        self.centres = 2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1
        self.charges = torch.randint(0, 2, (count,), generator=generator).double() * 2 - 1
        self.evaluated = 0

    def __call__(self, *axes: Tensor) -> Tensor:
        """Values on the product of three axes; each Gaussian is a product of functions of one coordinate."""
        self.evaluated += math.prod(len(axis) for axis in axes)
        weights, rates = exponents()
        total = torch.zeros([len(axis) for axis in axes], dtype=torch.float64)
        for weight, rate in zip(weights, rates, strict=True):
            x, y, z = (
                (-(rate * (axis - self.centres[:, n : n + 1])).square()).exp() for n, axis in enumerate(axes)
            )  # (particles, points)
            total += weight * torch.einsum("pi,pj,pk->ijk", x * self.charges.unsqueeze(-1), y, z)
        return total


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The largest difference of a Tucker rank of the fit from that of the values on the full grid."""
    axis = torch.linspace(-1, 1, GRID, dtype=torch.float64)
    digest, runs = hashlib.sha256(), []
    for count in PARTICLES:
        potential = Potential(count)
        digest.update(potential.centres.numpy().tobytes() + potential.charges.numpy().tobytes())
        clock = time.perf_counter()
        values = potential(axis, axis, axis)
        full = hooi(values, tol=TOL)
        on_grid = time.perf_counter() - clock
        errors, seconds, rank = {}, {}, ()
        for degree in DEGREES:
            clock = time.perf_counter()
            fit = chebyshev_tucker(potential, ((-1, 1),) * 3, (degree,) * 3, tol=TOL, on_grid=True)
            seconds[degree], rank = round(time.perf_counter() - clock, 3), fit.rank
            rest = fit.on_grid([axis] * 3).to_dense() - values
            errors[degree] = float(rest.norm() / values.norm())
        runs.append({
            "particles": count, "ranks, full grid": list(full.rank), "ranks, fit": list(rank),
            "relative error on the grid by degree": errors, "seconds of the fit by degree": seconds,
            "seconds, full grid": round(on_grid, 3),
        })  # fmt: skip
    worst = max(abs(a - b) for run in runs for a, b in zip(run["ranks, fit"], run["ranks, full grid"], strict=True))
    return Result(
        f"the Tucker ranks of a Chebyshev-Tucker fit of degree {DEGREES[-1]} to the long-range potential of 50 to "
        f"500 particles are those of the values on a grid of {GRID}³, up to 2, at a tolerance of {TOL:g}; "
        "largest difference",
        worst, "<=", 2, {"particles": digest.hexdigest()}, PARTICLES[0], {"grid": GRID, "runs": runs},
    )  # fmt: skip
