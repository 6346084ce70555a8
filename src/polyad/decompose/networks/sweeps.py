"""Alternating least squares on a tensor network, node by node; x is one tensor of norm 1 in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from polyad.einsum import contract
from polyad.formats import Network
from polyad.formats.networks.arithmetic import split_einsum

_HAIR = 64 * torch.finfo(torch.float64).eps


def random_network(expression: str, sizes: dict[str, int], generator: Generator) -> Network:
    """A network of normal nodes of unit norm; ``sizes`` has that of every letter."""
    terms, _ = split_einsum(expression)
    nodes = [torch.randn([sizes[c] for c in t], generator=generator, dtype=torch.float64) for t in terms]
    return Network(expression, tuple([node / node.norm() for node in nodes]))


def refine_network(
    x: Tensor,
    network: Network,
    *,
    max_iter: int,
    stop: float = 0.0,
    target: float = 0.0,
    first: int = 0,
    after: Callable[[int, float], None] | None = None,
) -> tuple[Network, float]:
    """Refine a network by sweeps; the network, and its squared error, which no node's update raises.

    A sweep renews every node by least squares, beginning with node ``first``. It ends after ``max_iter`` sweeps, at a
    squared error of ``target``, or when a sweep lowers it by no more than the share ``stop``.
    """
    terms, modes = split_einsum(network.expression)
    nodes, outer, error = list(network.operands), "".join(modes), math.inf
    order = [*range(first, len(nodes)), *range(first)]
    for sweep in range(max_iter):
        before = error
        for place in order:
            nodes[place], error = _best_node(x, outer, terms, nodes, place)
        nodes = _balance_nodes(nodes)
        if after is not None:
            after(sweep, error)
        if error <= target or (sweep and before - error <= stop * before):
            break
    return Network(network.expression, tuple(nodes)), error


def _best_node(x: Tensor, outer: str, terms: list[str], nodes: list[Tensor], place: int) -> tuple[Tensor, float]:
    """The best node while all others stay, and the squared error then."""
    term = terms[place]
    modes = [c for c in term if c in outer]
    bonds = [c for c in term if c not in outer]
    rest = [c for c in outer if c not in modes]
    target = x.permute([outer.index(c) for c in (*modes, *rest)])
    target = target.reshape(math.prod(target.shape[: len(modes)]), -1)
    others = [i for i in range(len(terms)) if i != place]
    if others:
        inputs = ",".join([terms[i] for i in others])
        around = contract(f"{inputs}->{''.join((*bonds, *rest))}", *[nodes[i] for i in others])
        around = around.reshape(-1, target.shape[1])
    else:
        around = x.new_ones(1, 1)
    letters = [*modes, *bonds]
    old = nodes[place].permute([term.index(c) for c in letters])
    new, error = _solve_node(target, around, old.reshape(len(target), len(around)))
    return new.reshape(old.shape).permute([letters.index(c) for c in term]).contiguous(), error


def _solve_node(target: Tensor, around: Tensor, old: Tensor) -> tuple[Tensor, float]:
    """Solve for the rows G of least ``‖target - G around‖²``, nearest to the old ones where several are."""
    gram, right = around @ around.mT, target @ around.mT
    hair = _HAIR * gram.diagonal().sum().clamp_min(torch.finfo(torch.float64).tiny)
    damped = gram + hair * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    new = torch.cholesky_solve((right + hair * old).mT, torch.linalg.cholesky_ex(damped).L).mT
    error = target.square().sum() - 2 * (new * right).sum() + (new @ gram * new).sum()
    return new, max(0.0, float(error))


def _balance_nodes(nodes: list[Tensor]) -> list[Tensor]:
    """Give all nodes the same norm; the tensor stays."""
    norms = torch.stack([node.norm() for node in nodes])
    if not bool((norms > 0).all()):
        return nodes
    mean = norms.log().mean().exp()
    return [node * (mean / norm) for node, norm in zip(nodes, norms, strict=True)]
