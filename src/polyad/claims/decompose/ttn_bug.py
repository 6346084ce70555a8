"""The parallel integrator of tree networks on a spin chain and on small singular values. Some three minutes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from polyad._callback import Callback
from polyad.claims._data_hash import sha
from polyad.claims.decompose._matrix_flows import (
    distance,
    matrix_problem,
    parallel_bug,
    project_factors,
    serial_bug,
    solve_exactly,
)  # fmt: skip
from polyad.claims.record import Line, Outcome, mean_and_error
from polyad.decompose import ttn_bug
from polyad.formats import TreeNetwork

MINUTES = 3
SPINS, FIELD, TIME = 8, 1.0, 0.5
STEPS = (10, 20, 40, 80)
SEEDS = range(6)
LEAST = (1e-2, 1e-6, 1e-12)
TREE = (((0, 1), (2, 3)), ((4, 5), (6, 7)))

FLIP = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
SIGN = torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)

Errors = dict[int, float]
"""Relative errors by number of steps."""


def chain() -> list[dict[int, Tensor]]:
    """-i H of the Ising chain in a transverse field, H = -Σ Zᵢ Zᵢ₊₁ - FIELD Σ Xᵢ."""
    return [{i: 1j * FIELD * FLIP} for i in range(SPINS)] + [{i: 1j * SIGN, i + 1: SIGN} for i in range(SPINS - 1)]


def random_spins(seed: int) -> TreeNetwork:
    """A product state of spins in random directions."""
    generator = torch.Generator().manual_seed(seed)

    def node(part: Any) -> list[Tensor]:
        if isinstance(part, int):
            spin = torch.randn(2, 1, generator=generator, dtype=torch.complex128)
            return [spin / spin.norm()]
        return [torch.ones(1, 1, 1, dtype=torch.complex128), *node(part[0]), *node(part[1])]

    root, *others = node(TREE)
    return TreeNetwork(TREE, (root[..., 0], *others))


def whole(operator: list[dict[int, Tensor]], shape: tuple[int, ...]) -> Tensor:
    """The matrix of a sum of products, for the exact solution."""
    total = torch.zeros(math.prod(shape), math.prod(shape), dtype=torch.complex128)
    for term in operator:
        matrix = torch.ones(1, 1, dtype=torch.complex128)
        for mode, n in enumerate(shape):
            matrix = torch.kron(matrix, term.get(mode, torch.eye(n, dtype=torch.float64)))
        total += matrix
    return total


def spin_errors(start: TreeNetwork, flow: Tensor, rank: int | None = None) -> Errors:
    """Relative errors on the chain, without a bound on the ranks unless one is given."""
    exact = flow @ start.to_dense().flatten()
    states = {steps: ttn_bug(start, chain(), TIME, steps=steps, tol=1e-10, rank=rank) for steps in STEPS}
    return {steps: float((y.to_dense().flatten() - exact).norm() / exact.norm()) for steps, y in states.items()}


def order(errors: Errors) -> float:
    """The observed order from the fewest steps to the most."""
    return math.log(errors[STEPS[0]] / errors[STEPS[-1]]) / math.log(STEPS[-1] / STEPS[0])


def matrix_figures(seed: int) -> dict[str, Errors]:
    """By name: errors of the method and of factors without basis updates, and distances from the serial method."""
    figures: dict[str, Errors] = {}
    for least in LEAST:
        exact = solve_exactly(seed, least)
        for name, solve in (("parallel", parallel_bug), ("serial", serial_bug), ("factors", project_factors)):
            figures[f"{name} {least:g}"] = {n: distance(solve(seed, least, n), exact) for n in STEPS}
    for name, galerkin in (("from serial", True), ("from serial without its core step", False)):
        figures[name] = {
            n: distance(parallel_bug(seed, LEAST[0], n), serial_bug(seed, LEAST[0], n, galerkin=galerkin))
            for n in STEPS
        }
    return figures


def claim(callback: Callback | None = None) -> Outcome:
    """The order on the chain, on matrices by least singular value, and of the distance from the serial method."""
    flow = torch.matrix_exp(TIME * whole(chain(), (2,) * SPINS))
    chains: list[Errors] = []
    fixed: list[Errors] = []
    matrices: list[dict[str, Errors]] = []
    for done, seed in enumerate(SEEDS, 1):
        chains.append(spin_errors(random_spins(seed), flow))
        fixed.append(spin_errors(random_spins(seed), flow, rank=1))
        matrices.append(matrix_figures(seed))
        if callback is not None:
            callback(done, len(SEEDS), {"order": order(chains[-1])})
    data = {
        "spins": sha(random_spins(seed).to_dense().abs() for seed in SEEDS),
        "matrices": sha(part for seed in SEEDS for part in matrix_problem(seed, LEAST[-1])),
    }
    details = {"chain": chains, "chain, bonds of 1": fixed, "matrices": matrices}
    return Outcome([_chain_line(chains, fixed, data), *_matrix_lines(matrices, data)], details)


def _chain_line(chains: list[Errors], fixed: list[Errors], data: dict[str, str]) -> Line:
    without = sum(map(order, fixed)) / len(fixed)
    return Line(
        assertion=f"on an {SPINS}-spin Ising chain from random product states the error falls in first order in the "
        "step; observed order, 0.9 allowing for higher terms",
        **mean_and_error([order(errors) for errors in chains]), relation=">=", bound=0.9, seeds=len(chains),
        rival="the exact exponential of the whole operator",
        control=f"bases not augmented, bonds staying 1: order {without:.3f}, which fails", data=data, tolerance=0.05,
    )  # fmt: skip


def _matrix_lines(matrices: list[dict[str, Errors]], data: dict[str, str]) -> list[Line]:
    def orders(name: str) -> list[float]:
        return [order(figures[name]) for figures in matrices]

    def blown(least: float) -> int:
        return sum(not math.isfinite(max(figures[f"factors {least:g}"].values())) for figures in matrices)

    ratios = [max(f["parallel 1e-12"][n] / f["parallel 0.01"][n] for n in STEPS) for f in matrices]
    count = len(matrices)
    factors = "the equations of U, S and V without basis updates, S inverted, by the same Runge-Kutta steps"
    serial = sum(figures["serial 1e-12"][STEPS[0]] for figures in matrices) / count
    core = orders("from serial without its core step")
    return [
        Line(
            assertion="on a matrix equation singular values down to 1e-12 in place of 1e-2 enlarge the error by at "
            "most a tenth at any step",
            **mean_and_error(ratios), relation="<=", bound=1.1, seeds=count, data=data, rival=factors, tolerance=0.1,
            control=f"{factors}: infinite in {blown(1e-12)} of {count} seeds, which fails",
        ),
        *(
            Line(
                assertion=f"on a matrix equation with singular values down to {least:g} the error falls in first "
                "order in the step; observed order, 0.9 allowing for higher terms",
                **mean_and_error(orders(f"parallel {least:g}")), relation=">=", bound=0.9, seeds=count, data=data,
                rival=f"serial basis updates, exact but for roundings of the steps: {serial:.1g} after {STEPS[0]}",
                control=f"without the core step of the serial method: order of the distance {sum(core) / count:.4f}, "
                f"which fails; {factors}: infinite in {blown(least)} of {count} seeds", tolerance=0.1,
            )
            for least in LEAST
        ),
        Line(
            assertion="parallel and serial basis updates agree in first order in the step, singular values down to "
            "1e-2; observed order of their distance, 0.9 allowing for higher terms",
            **mean_and_error(orders("from serial")), relation=">=", bound=0.9, seeds=count, data=data, tolerance=0.05,
            rival="serial basis updates with augmented bases, cut to the same rank",
            control=f"serial without its core step: order {sum(core) / count:.4f}, which fails",
        ),
    ]  # fmt: skip
