"""Tensor networks whose graph and ranks grow as the data need."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.bounded_lbfgs import minimise
from polyad.decompose.networks._search import Search
from polyad.decompose.networks.sweeps import random_network, refine_network
from polyad.einsum import symbol
from polyad.formats import Network
from polyad.linalg import near_unit

HASHEMIZADEH = Paper(
    "Hashemizadeh, Liu, Miller, Rabusseau",
    2022,
    "Adaptive Learning of Tensor Network Structures",
    "arXiv:2008.05437",
    handle="greedy-tn",
    adds="edges grown one at a time, each time the one that lowers the loss most, and nodes split in two",
)

_FEW, _LAST = 1, 100
_TRUSTED, _ROUNDING = 1e-10, 1e-14


@method(
    "decompose",
    makes=Network,
    example={"x": (4, 3, 4), "rank": 2},
    instead="Where the graph is known: `tt_svd`, `hooi` or `tr_svd`. On small graphs a genetic search tries no more.",
    papers=(HASHEMIZADEH,),
)
def greedy_tn(
    x: Tensor,
    rank: int | None = None,
    *,
    tol: float | None = None,
    budget: int | None = None,
    max_iter: int = 1,
    stop: float = 1e-2,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Network:
    """A tensor network of any graph near x, which starts without edges and grows the one that helps most.

    x has shape (I₁, …, I_N), N >= 2; one node a mode at first. A step tries every pair of nodes with their edge one
    larger, one sweep of alternating least squares each, keeps the best and refines it. Then edges that lost their
    worth shrink. It ends at a relative Frobenius error of ``tol``, or where no edge may grow: nodes may hold
    ``budget`` numbers together, an edge at most ``rank``; give one of these three or several. Once ``tol`` is met,
    or the budget is full, nodes are split where that saves numbers (cores such as Tucker's appear), contracted where
    nothing is lost, and edges shrink as far as ``tol`` allows. Edges of one do not appear in the result. Where a
    network would hold as many numbers as x, its only node is x.

    Nodes have x's dtype; computed in float64, and detached from x. A sweep costs about 2 numel(x) r operations for a
    node with r numbers along its edges, and numel(x) r / I_n numbers of memory. A kept network is refined by at most
    ``max_iter`` sweeps, fewer where one gains no more than the share ``stop`` of the squared error. One is best for
    finding small graphs: edges then grow before others have fitted what these are for.
    ``callback(step, None, {"loss": …, "parameters": …, "evaluations": …})`` follows each step with the squared
    relative error. ``generator`` draws the start and new slices.

    Departs from the paper in least squares where it takes gradients (``grow_network`` does), in edges that shrink
    again and in nodes that merge: without these, an edge grown early stays when later ones have made it useless.

    Raises ValueError for NaN and infinities, a budget that holds no node a mode, and without any bound.

    >>> ring = Network.random((5, 4, 5, 4), generator=torch.Generator().manual_seed(0)).to_dense()
    >>> fit = greedy_tn(ring, tol=1e-4)
    >>> fit.shape, fit.parameters < 120, bool((fit.to_dense() - ring).norm() < 1e-4 * ring.norm())
    ((5, 4, 5, 4), True, True)
    """
    _check.iterations(max_iter, stop)
    _check_arguments(x, rank, tol, budget)
    work, scale = near_unit(x.detach().double(), x.ndim)
    norm = work.norm()
    modes = "".join([symbol(i) for i in range(x.ndim)])
    generator = generator or Generator().manual_seed(0)
    start = random_network(f"{','.join(modes)}->{modes}", dict(zip(modes, x.shape, strict=True)), generator)
    if float(norm) == 0:
        return Network(start.expression, tuple([torch.zeros_like(node).to(x) for node in start.operands]))
    unit, target = work / norm, max(_ROUNDING, (tol or 0.0) * (1 - 1e-6)) ** 2

    def improve(network: Network, steps: int, first: int) -> tuple[Network, float]:
        network, error = refine_network(unit, network, max_iter=steps, stop=stop, target=target, first=first)
        return network, error if error > _TRUSTED else float((network.to_dense() - unit).square().sum())

    most = math.inf if budget is None else budget
    search = Search(improve, start, target=target, budget=most, few=min(_FEW, max_iter), many=max_iter)
    network = search.run(rank, x.numel(), generator, callback)
    if search.loss > target:
        network, _ = refine_network(unit, network, max_iter=_LAST, stop=stop)
    size = norm if scale is None else norm * scale
    nodes = [node * size ** (1 / len(network.operands)) for node in network.operands]
    result = Network(network.expression, tuple([node.to(x) for node in nodes]))
    if _is_acceptable(result, x, work, scale, tol):
        return result
    return Network(f"{modes}->{modes}", (x.detach().clone(),))


def grow_network(
    loss: Callable[[Network], Tensor],
    shape: tuple[int | tuple[int, ...], ...],
    rank: int | None = None,
    *,
    target: float | None = None,
    budget: int | None = None,
    max_iter: int = 200,
    stop: float = 1e-4,
    dtype: torch.dtype = torch.float32,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Network:
    """``greedy_tn`` for any differentiable loss: completion, a layer that is to be made smaller, a likelihood.

    ``loss`` takes a Network and gives one number, through which gradients reach its nodes. ``shape`` has a number
    for each mode, or several where modes fuse to one: ``((4, 8), (4, 8))`` grows a 32 x 32 matrix of four nodes that
    can be applied with ``linear``. Ends at a loss of ``target``, or where no edge may grow (``budget``, ``rank``).
    Each refinement takes at most ``max_iter`` steps of L-BFGS on all nodes, fewer when two in a row gain no more
    than the share ``stop``. The first network is random, of norm near one.

    >>> planted = torch.outer(torch.arange(1.0, 6), torch.arange(1.0, 5))
    >>> seen = torch.ones(5, 4, dtype=torch.bool)
    >>> seen[2, 3] = False
    >>> fit = grow_network(lambda m: (m.to_dense() - planted)[seen].square().mean(), (5, 4), budget=9)
    >>> fit.to_dense()[2, 3].round(decimals=1)
    tensor(12.)
    """
    groups = [(n,) if isinstance(n, int) else tuple(n) for n in shape]
    sizes = [n for group in groups for n in group]
    _check_bounds(sizes, rank, budget, target)
    letters = iter([symbol(i) for i in range(len(sizes))])
    names = ["".join([next(letters) for _ in group]) for group in groups]
    inputs, output = ",".join("".join(names)), "".join(n if len(n) == 1 else f"({n})" for n in names)
    generator = generator or Generator().manual_seed(0)
    start = random_network(f"{inputs}->{output}", dict(zip("".join(names), sizes, strict=True)), generator)
    search = Search(
        partial(_minimise_loss, loss, stop), Network(start.expression, tuple([n.to(dtype) for n in start.operands])),
        target=-math.inf if target is None else target, budget=math.inf if budget is None else budget,
        few=min(16, max_iter), many=max_iter,
    )  # fmt: skip
    return search.run(rank, math.prod(sizes), generator, callback)


def _minimise_loss(
    loss: Callable[[Network], Tensor], stop: float, network: Network, steps: int, _: int
) -> tuple[Network, float]:
    """Minimise the loss by some steps of L-BFGS on all nodes; the network and its loss."""
    shapes = [node.shape for node in network.operands]

    def put(vector: Tensor) -> Network:
        parts = vector.split([shape.numel() for shape in shapes])
        return Network(network.expression, tuple([p.view(s) for p, s in zip(parts, shapes, strict=True)]))

    def function(vector: Tensor) -> tuple[float, Tensor]:
        with torch.enable_grad():
            vector = vector.detach().requires_grad_()
            value = loss(put(vector))
            (gradient,) = torch.autograd.grad(value, vector)
        return float(value.detach()), gradient

    start = torch.cat([node.flatten() for node in network.operands])
    values: list[float] = []
    end = minimise(function, start, nonnegative=False, max_iter=steps, stop=stop, after=values.append)
    return put(end), values[-1] if values else function(end)[0]


def _check_arguments(x: Tensor, rank: int | None, tol: float | None, budget: int | None) -> None:
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 2))
    if tol is not None:
        _check.tolerance(tol)
    _check_bounds(list(x.shape), rank, budget, tol)


def _check_bounds(sizes: list[int], rank: int | None, budget: int | None, end: float | None) -> None:
    if rank is None and budget is None and end is None:
        raise ValueError(
            "nothing bounds the network; give tol or target, a budget of numbers, or a rank for all edges"
        )
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank} is below 1; choose the size that no edge is to exceed, 1 or more")
    if budget is not None and budget < sum(sizes):
        raise ValueError(f"budget={budget} does not hold a network without edges, which stores {sum(sizes)} numbers")


def _is_acceptable(result: Network, x: Tensor, work: Tensor, scale: Tensor | None, tol: float | None) -> bool:
    """True where the rounded network is smaller than x, and within tol if one is given."""
    if tol is None or x.dtype not in (torch.float32, torch.float64):
        return result.parameters < x.numel()
    dense = result.to_dense().double()
    off = (dense if scale is None else dense / scale) - work
    return result.parameters < x.numel() and float(off.norm()) <= tol * float(work.norm())
