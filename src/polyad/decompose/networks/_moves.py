"""Small changes of a tensor network: an edge one larger or smaller, a node split, two merged.

Edges of size one are left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from polyad.einsum import contract, symbol
from polyad.formats import Network
from polyad.formats.networks.arithmetic import split_einsum

Edge = tuple[int, int]

_NOISE = 1e-7  # of the strongest direction, below which others are rounding


def growable_edges(network: Network, limit: int | None = None) -> list[Edge]:
    """The pairs of nodes whose edge can grow: up to ``limit``, and to the size of either node's other sides."""
    terms, _ = split_einsum(network.expression)
    pairs = []
    for i, j in itertools.combinations(range(len(terms)), 2):
        size = _size(network, _bond(network, i, j))
        if size < min([limit or math.inf, *[network.operands[k].numel() // size for k in (i, j)]]):
            pairs.append((i, j))
    return pairs


def grow_edge(network: Network, edge: Edge, generator: Generator) -> Network:
    """Make this edge one larger, by zeros at the first node and random numbers at the second; the tensor stays."""
    terms, _ = split_einsum(network.expression)
    letter, nodes = _bond(network, *edge), list(network.operands)
    if letter is None:
        letter = _free_letter(network.expression)
        for place in edge:
            terms[place] += letter
            nodes[place] = nodes[place].unsqueeze(-1)
    for place, noise in zip(edge, (0.0, 1.0), strict=True):
        axis = terms[place].index(letter)
        part = nodes[place].narrow(axis, 0, 1)
        entries = torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)
        size = noise * nodes[place].square().mean().sqrt()
        nodes[place] = torch.cat((nodes[place], entries * size), axis)
    return _tidy(network, terms, nodes)


def shrink_edge(network: Network, letter: str) -> Network:
    """Make this edge one smaller, or more: without the weakest direction and those that are rounding."""
    terms, _ = split_einsum(network.expression)
    nodes = list(network.operands)
    ends = [i for i, term in enumerate(terms) if letter in term]
    flat = [nodes[i].movedim(terms[i].index(letter), -1) for i in ends]
    bases, triangles = zip(*[torch.linalg.qr(x.reshape(-1, x.shape[-1])) for x in flat], strict=True)
    u, s, vh = torch.linalg.svd(triangles[0] @ triangles[1].mT, full_matrices=False)
    keep = max(1, min(int((s > _NOISE * s[0]).sum()), flat[0].shape[-1] - 1))
    root = s[:keep].sqrt()
    for i, x, basis, side in zip(ends, flat, bases, (u[:, :keep] * root, vh[:keep].mT * root), strict=True):
        cut = (basis @ side).reshape(*x.shape[:-1], keep)
        nodes[i] = cut[..., 0] if keep == 1 else cut.movedim(-1, terms[i].index(letter))
    if keep == 1:
        terms = [term.replace(letter, "") for term in terms]
    return _tidy(network, terms, nodes)


def node_splits(network: Network, share: float) -> Iterator[Network]:
    """Networks of fewer numbers with one node split in two, that lose at most this share of the node's squares.

    Those that save most come first. A mode may be split off alone, as a factor of a core; an edge may not.
    """
    terms, modes = split_einsum(network.expression)
    outer, splits = set("".join(modes)), []
    for place, term in enumerate(terms):
        for left, right in _parts(term, outer):
            x = network.operands[place].permute([term.index(c) for c in left + right])
            matrix = x.reshape(math.prod(x.shape[: len(left)]), -1)
            limit = (matrix.numel() - 1) // sum(matrix.shape)  # more directions save nothing
            if limit < 1:
                continue
            s = torch.linalg.svdvals(matrix)
            tails = s.square().flip(0).cumsum(0).flip(0)
            rank = max(1, int((tails > share * tails[0]).sum()))
            if rank <= limit:
                splits.append((rank * sum(matrix.shape) - matrix.numel(), place, left, right, rank))
    for _, place, left, right, rank in sorted(splits):
        yield _split(network, place, left, right, rank)


def node_merges(network: Network, more: int = 0) -> Iterator[Network]:
    """The same tensor with two nodes contracted to one that holds no more numbers than both did, or ``more``."""
    terms, _ = split_einsum(network.expression)
    for i, j in itertools.combinations(range(len(terms)), 2):
        letter = _bond(network, i, j)
        if letter is None:
            continue
        term = "".join(c for c in terms[i] + terms[j] if c != letter)
        node = contract(f"{terms[i]},{terms[j]}->{term}", network.operands[i], network.operands[j])
        if node.numel() <= network.operands[i].numel() + network.operands[j].numel() + more:
            left = [k for k in range(len(terms)) if k not in (i, j)]
            nodes = [network.operands[k] for k in left]
            yield _tidy(network, [*[terms[k] for k in left], term], [*nodes, node])


def parameters(network: Network) -> int:
    """The numbers that the nodes hold."""
    return sum([node.numel() for node in network.operands])


def _parts(term: str, outer: set[str]) -> Iterator[tuple[str, str]]:
    first, rest = term[:1], term[1:]
    for count in range(len(rest)):
        for others in itertools.combinations(rest, count):
            left, right = first + "".join(others), "".join(c for c in rest if c not in others)
            if all(len(side) > 1 or side in outer for side in (left, right)):
                yield left, right


def _split(network: Network, place: int, left: str, right: str, rank: int) -> Network:
    terms, _ = split_einsum(network.expression)
    nodes, term, letter = list(network.operands), terms[place], _free_letter(network.expression)
    x = nodes[place].permute([term.index(c) for c in left + right])
    u, s, vh = torch.linalg.svd(x.reshape(math.prod(x.shape[: len(left)]), -1), full_matrices=False)
    root = s[:rank].sqrt()
    halves = ((u[:, :rank] * root).reshape(*x.shape[: len(left)], rank), root[:, None] * vh[:rank])
    if rank == 1:
        letter = ""
        halves = (halves[0][..., 0], halves[1][0])
    nodes[place : place + 1] = [halves[0], halves[1].reshape(*((rank,) if letter else ()), *x.shape[len(left) :])]
    terms[place : place + 1] = [left + letter, letter + right]
    return _tidy(network, terms, nodes)


def _tidy(network: Network, terms: list[str], nodes: list[Tensor]) -> Network:
    """Tidy a network: nodes without letters go into others, edges between the same two nodes become one."""
    for place in reversed(range(len(terms))):
        if not terms[place] and len(terms) > 1:
            number = nodes.pop(place)
            del terms[place]
            nodes[0] = nodes[0] * number
    for i, j in itertools.combinations(range(len(terms)), 2):
        shared = [c for c in terms[i] if c in terms[j]]
        if len(shared) > 1:
            for k in (i, j):
                rest = [c for c in terms[k] if c not in shared]
                x = nodes[k].permute([terms[k].index(c) for c in (*rest, *shared)])
                terms[k], nodes[k] = "".join(rest) + shared[0], x.flatten(len(rest))
    return Network(f"{','.join(terms)}->{network.expression.split('->')[1]}", tuple(nodes))


def _bond(network: Network, i: int, j: int) -> str | None:
    terms, _ = split_einsum(network.expression)
    return next((c for c in terms[i] if c in terms[j]), None)


def _size(network: Network, letter: str | None) -> int:
    return 1 if letter is None else network.rank[letter]


def _free_letter(expression: str) -> str:
    return next(letter for letter in map(symbol, itertools.count()) if letter not in expression)
