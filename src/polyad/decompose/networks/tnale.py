"""Tensor rings whose ranks and whose order of modes are searched for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.networks.sweeps import random_network, refine_network
from polyad.einsum import symbol
from polyad.formats import Network
from polyad.linalg import near_unit

_SLOW = 1e-2  # least share of the squared error that a sweep is to gain: what gains less will not fit


@dataclass(frozen=True)
class Structure:
    """The ranks of a graph's edges, and which mode stands at each of its nodes."""

    rank: tuple[int, ...]
    order: tuple[int, ...]


@method(
    "decompose",
    makes=Network,
    example={"x": (4, 3, 4), "rank": 2, "max_iter": 20},
    papers=(
        Paper(
            "Li, Zeng, Li, Caiafa, Zhao",
            2023,
            "Alternating Local Enumeration (TnALE): Solving Tensor Network Structure Search with Fewer Evaluations",
            "arXiv:2304.12875",
            handle="tnale",
            adds="one rank or the order at a time, on round trips, first in wide steps",
        ),
    ),
)
def tnale(
    x: Tensor,
    rank: int | None = None,
    *,
    tol: float | None = None,
    weight: float = 10.0,
    starts: int = 2,
    max_iter: int = 50,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Network:
    """A tensor ring near x with few numbers, its modes in an order that is searched for together with its ranks.

    x has shape (I₁, …, I_N), N >= 3. Least is sought of the share of x's numbers that the ring holds, plus ``weight``
    times the relative Frobenius error where that is above ``tol``, 1e-3 unless given; ``local_enumeration`` searches
    from ranks of two, each from 1 to ``rank``. Ranks of one open the ring; they do not appear in the result, whose
    modes stand in x's order. With ``rank``, the error is what such ranks allow. Without, ranks go up to the largest
    mode, and where no ring within ``tol`` was found that is smaller than x, the result is x as a single node.

    An evaluation fits a ring from ``starts`` random starts, at most ``max_iter`` sweeps each; some N (N + 3 R) are
    needed a round trip. Nodes have x's dtype; computed in float64, detached from x. ``callback(count, None,
    {"objective": …})`` follows each evaluation. ``generator`` draws the starts of fits.

    >>> generator = torch.Generator().manual_seed(0)
    >>> nodes = torch.randn(4, 4, 2, 2, generator=generator).unbind()
    >>> planted = Network("axy,czx,bwz,dyw->abcd", nodes).to_dense()
    >>> fit = tnale(planted, 3, tol=1e-3)
    >>> fit.parameters < planted.numel() / 2, bool((fit.to_dense() - planted).norm() < 1e-3 * planted.norm())
    (True, True)
    """
    _check.iterations(max_iter)
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 3))
    tol = _tolerance(rank, tol)
    work, scale = near_unit(x.detach().double(), x.ndim)
    norm = work.norm()
    if float(norm) == 0:
        return _rescale(random_ring(work, Structure((1,) * x.ndim, tuple(range(x.ndim))), Generator()), norm, None, x)
    unit, generator = work / norm, generator or Generator().manual_seed(0)
    fits: dict[Structure, tuple[Network, float]] = {}

    def objective(structure: Structure) -> float:
        tries = (random_ring(unit, structure, generator) for _ in range(starts))
        target = (tol * (1 - 1e-6)) ** 2
        rings = (refine_network(unit, one, max_iter=max_iter, stop=_SLOW, target=target) for one in tries)
        fits[structure] = network, error = _first_fit(rings, target)
        value = network.parameters / x.numel() + (weight * error**0.5 if error > target else 0.0)
        if callback is not None:
            callback(len(fits) - 1, None, {"objective": value})
        return value

    most = max(x.shape) if rank is None else rank
    start = Structure((min(2, most),) * x.ndim, tuple(range(x.ndim)))
    network = fits[local_enumeration(objective, start, most=most)][0]
    result = _rescale(network, norm, scale, x)
    dense = result.to_dense().double()
    off = (dense if scale is None else dense / scale) - work
    fits_within = result.parameters < x.numel() and float(off.norm()) <= tol * float(norm)
    return result if rank is not None or fits_within else _single_node(x)


def _single_node(x: Tensor) -> Network:
    modes = "".join([symbol(i) for i in range(x.ndim)])
    return Network(f"{modes}->{modes}", (x.detach().clone(),))


def _tolerance(rank: int | None, tol: float | None) -> float:
    """The relative error above which more numbers are worth it; 1e-3 where ranks alone are given."""
    if rank is None and tol is None:
        raise ValueError("rank and tol are both missing; give the largest rank of an edge, the error, or both")
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank} is below 1; choose the size that no edge is to exceed, 1 or more")
    return _check.tolerance(1e-3 if tol is None else tol)


def local_enumeration(
    objective: Callable[[Structure], float], start: Structure, *, most: int, radius: int = 1, wide: int = 2
) -> Structure:
    """The best structure found by enumerating one variable at a time, on round trips, until a trip changes nothing.

    The variables are each rank, from 1 to ``most``, and the order of the modes; a trip goes through the ranks, the
    order and back. A rank is tried at every value up to ``radius`` away, an order with every two modes exchanged.
    Trips come first with ranks ``wide`` away only: where the paper interpolates between these the objective is taken
    for linear, so that its least value is at one of them. ``objective`` is called once a structure.

    >>> local_enumeration(lambda s: abs(s.rank[0] - 5) + abs(s.order[0] - 2), Structure((1,), (0, 1, 2)), most=9)
    Structure(rank=(5,), order=(2, 1, 0))
    """
    values: dict[Structure, float] = {}

    def value(structure: Structure) -> float:
        if structure not in values:
            values[structure] = objective(structure)
        return values[structure]

    there = [*range(len(start.rank)), None]
    current = start
    for steps in ((-wide, 0, wide), tuple(range(-radius, radius + 1))):
        before = None
        while current != before:
            before = current
            for variable in (*there, *there[-2::-1]):
                current = min((current, *_neighbours(current, variable, steps, most)), key=value)
    return current


def _neighbours(current: Structure, variable: int | None, steps: tuple[int, ...], most: int) -> Iterator[Structure]:
    if variable is None:
        for i, j in itertools.combinations(range(len(current.order)), 2):
            order = list(current.order)
            order[i], order[j] = order[j], order[i]
            yield replace(current, order=tuple(order))
        return
    for r in sorted({min(most, max(1, current.rank[variable] + step)) for step in steps}):
        rank = (*current.rank[:variable], r, *current.rank[variable + 1 :])
        yield replace(current, rank=rank)


def random_ring(x: Tensor, structure: Structure, generator: Generator) -> Network:
    """A random ring: ``order[i]`` is the mode of its i-th node, ``rank[i]`` the edge between that and the next."""
    n = x.ndim
    modes, bonds = [symbol(i) for i in range(n)], [symbol(n + i) for i in range(n)]
    open_bonds = {bond: r for bond, r in zip(bonds, structure.rank, strict=True) if r > 1}
    terms = [""] * n
    for i, mode in enumerate(structure.order):
        terms[mode] = modes[mode] + "".join(b for b in (bonds[i - 1], bonds[i]) if b in open_bonds)
    sizes = dict(zip(modes, x.shape, strict=True)) | open_bonds
    return random_network(f"{','.join(terms)}->{''.join(modes)}", sizes, generator)


def _first_fit(fits: Iterator[tuple[Network, float]], target: float) -> tuple[Network, float]:
    """The first fit within the target, or the best of all."""
    best: tuple[Network, float] | None = None
    for fit in fits:
        if best is None or fit[1] < best[1]:
            best = fit
        if best[1] <= target:
            break
    if best is None:
        raise ValueError("starts=0 leaves nothing to fit; choose 1 or more")
    return best


def _rescale(network: Network, norm: Tensor, scale: Tensor | None, like: Tensor) -> Network:
    size = (norm if scale is None else norm * scale) ** (1 / like.ndim)
    return Network(network.expression, tuple([(node * size).to(like) for node in network.operands]))
