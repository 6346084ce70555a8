"""Hidden rings found by enumerating one variable at a time and by sampling neighbourhoods. About ten minutes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.claims.record import Result
from polyad.decompose.networks.sweeps import refine_network
from polyad.decompose.networks.tnale import Structure, local_enumeration, random_ring
from polyad.formats import Network

MINUTES = 10
SIZES = {4: 5, 5: 4, 6: 3}
SEEDS, MOST, TOL, WEIGHT = (0, 1), 4, 1e-3, 10.0
SAMPLES, TIMES = 60, 10


def planted_ring(n: int, seed: int) -> tuple[Structure, Tensor]:
    """A ring of ranks 2 and 3 over modes in a random order, and its tensor of norm 1."""
    generator = Generator().manual_seed(seed)
    rank = tuple(torch.randint(2, 4, (n,), generator=generator).tolist())
    structure = Structure(rank, tuple(torch.randperm(n, generator=generator).tolist()))
    x = random_ring(torch.empty([SIZES[n]] * n), structure, generator).to_dense()
    return structure, x / x.norm()


def canonical_ring(structure: Structure) -> Structure:
    """The same ring read from mode 0 on, towards the lesser of its neighbours."""
    n, first = len(structure.order), structure.order.index(0)
    order = structure.order[first:] + structure.order[:first]
    rank = structure.rank[first:] + structure.rank[:first]
    if order[1] > order[-1]:
        order, rank = (order[0], *order[:0:-1]), rank[::-1]
    assert len(order) == n
    return Structure(rank, order)


class Objective:
    """The share of x's numbers a ring holds plus the weighted error; both searches pay for each structure once."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.fits = x, dict[Structure, tuple[Network, float]]()

    def fit(self, structure: Structure) -> tuple[Network, float]:
        key = canonical_ring(structure)
        if key not in self.fits:
            best: tuple[Network, float] | None = None
            for seed in range(2):
                start = random_ring(self.x, key, Generator().manual_seed(seed))
                fitted = refine_network(self.x, start, max_iter=30, stop=2e-2, target=TOL**2)
                best = fitted if best is None or fitted[1] < best[1] else best
                if best[1] <= TOL**2:
                    break
            assert best is not None
            self.fits[key] = best
        return self.fits[key]

    def __call__(self, structure: Structure) -> float:
        network, error = self.fit(structure)
        return network.parameters / self.x.numel() + (WEIGHT * error**0.5 if error > TOL**2 else 0.0)

    def is_reached(self, structure: Structure, numbers: int) -> bool:
        network, error = self.fit(structure)
        return network.parameters <= numbers and error <= TOL**2


def count_evaluations(
    objective: Objective, numbers: int, most: float
) -> tuple[Callable[[Structure], float], list[int]]:
    """The objective, and a list that gets the number of structures seen when it is reached, or ``most`` are."""
    visited: set[Structure] = set()
    when: list[int] = []

    def value(structure: Structure) -> float:
        visited.add(structure)
        if not when and (objective.is_reached(structure, numbers) or len(visited) >= most):
            when.append(len(visited))
        return objective(structure)

    return value, when


def search_by_sampling(value: Callable[[Structure], float], when: list[int], start: Structure, seed: int) -> None:
    """TNLS: the best of ``SAMPLES`` random neighbours becomes the centre if it is better, until ``when`` is filled.

    A neighbour's ranks are moved by rounded normal numbers, two of its modes are exchanged (Li et al. 2022).
    """
    generator, centre = Generator().manual_seed(seed), start
    least = value(start)
    while not when:
        for candidate in [neighbour(centre, generator) for _ in range(SAMPLES)]:
            if when:
                return
            if (score := value(candidate)) < least:
                centre, least = candidate, score


def neighbour(centre: Structure, generator: Generator) -> Structure:
    """A random structure near this one."""
    moves = torch.randn(len(centre.rank), generator=generator).round().int().tolist()
    rank = tuple(min(MOST, max(1, r + move)) for r, move in zip(centre.rank, moves, strict=True))
    order = list(centre.order)
    i, j = torch.randperm(len(order), generator=generator)[:2].tolist()
    order[i], order[j] = order[j], order[i]
    return Structure(rank, tuple(order))


def planted_numbers(structure: Structure, size: int) -> int:
    """The count of numbers of a ring whose modes all have this size."""
    return sum(size * a * b for a, b in zip(structure.rank, structure.rank[1:] + structure.rank[:1], strict=True))


def claim(callback: Callback | None = None) -> Result:
    """Hidden rings are reached with several times fewer evaluations than by sampling."""
    cases, digest, logs, by_order = [], {}, [], dict[int, list[int]]()
    for n in SIZES:
        for seed in SEEDS:
            structure, x = planted_ring(n, seed)
            objective, numbers = Objective(x), planted_numbers(structure, SIZES[n])
            start = Structure((2,) * n, tuple(range(n)))
            value, when = count_evaluations(objective, numbers, math.inf)
            visited: list[Structure] = []
            best = local_enumeration(lambda s, v=value, k=visited: k.append(s) or v(s), start, most=MOST)
            network, error = objective.fit(best)
            hit = objective.is_reached(best, numbers)
            ours = when[0] if when else len(visited)
            value, when = count_evaluations(objective, numbers, TIMES * ours)
            search_by_sampling(value, when, start, seed)
            logs.append(math.log(when[0] / ours) if hit else -math.inf)
            by_order.setdefault(n, []).append(ours)
            cases.append({
                "modes": n, "seed": seed, "numbers planted": numbers, "numbers found": network.parameters,
                "error": error**0.5, "reached": hit, "evaluations": ours, "evaluations until it ends": len(visited),
                "sampling's evaluations": when[0], "sampling gave up": when[0] >= TIMES * ours,
            })  # fmt: skip
            digest[f"{n} modes, seed {seed}"] = hashlib.sha256(x.numpy().tobytes()).hexdigest()
            if callback is not None:
                callback(len(cases), len(SIZES) * len(SEEDS), {"stage": "tensors", **cases[-1]})
    means = {n: sum(counts) / len(counts) for n, counts in by_order.items()}
    return Result(
        "rings of 4, 5 and 6 modes in a hidden order are found with the numbers planted or fewer (else counts as 0), "
        "and sampling needs several times as many evaluations to that point: the geometric mean of the ratios is",
        math.exp(sum(logs) / len(logs)), ">=", 3.0, digest, 0,
        {
            "cases": cases, "mean evaluations by modes": means,
            "the same over N squared R": {n: count / (n**2 * MOST) for n, count in means.items()},
            "the same over 2^N": {n: count / 2**n for n, count in means.items()},
            "sampling": f"{SAMPLES} neighbours a step, given up at {TIMES} times the evaluations of enumeration",
        },
    )  # fmt: skip
