"""Separators of trees: nodes that leave no piece larger than half."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Entries:
    """One level of separators: a row for each node in each group that it belongs to.

    A group is a piece of the tree, whose pairs of nodes are summed (``sign`` 1), or a branch of it, whose pairs are
    taken away again (``sign`` -1). ``distance`` is that to the piece's separator, ``reach`` the largest of the group
    and ``branch`` the branch that the node is in, from 1; the separator itself is in 0.
    """

    node: Tensor
    group: Tensor
    distance: Tensor
    reach: Tensor
    sign: Tensor
    groups: int


Neighbours = list[list[tuple[int, float]]]
Piece = tuple[list[int], list[int], list[float]]


def separate(edges: Tensor, lengths: Tensor) -> tuple[Entries, ...]:
    """The levels of separators of a tree, at most log₂ n + 1; anything but a tree is refused. O(n log n)."""
    near = neighbours(edges, lengths)
    gone = [False] * len(near)
    pieces, levels = [0], []
    while pieces:
        level, pieces = _level(pieces, near, gone)
        levels.append(_as_entries(level, lengths.dtype))
    return tuple(levels)


def neighbours(edges: Tensor, lengths: Tensor) -> Neighbours:
    """The neighbours of each node of a tree and how far they are; anything but a tree is refused."""
    n = len(edges) + 1
    if len(edges) and not (int(edges.min()) >= 0 and int(edges.max()) < n):
        raise ValueError(
            f"edges name nodes from {int(edges.min())} to {int(edges.max())}; a tree of {n} nodes has 0 to {n - 1}"
        )
    near: Neighbours = [[] for _ in range(n)]
    for (a, b), length in zip(edges.tolist(), lengths.tolist(), strict=True):
        near[a].append((b, length))
        near[b].append((a, length))
    if len(walk(0, near, [False] * n)[0]) != n:
        raise ValueError(f"the {n - 1} edges do not connect {n} nodes; they hold a cycle, and a tree is needed")
    return near


def _level(pieces: list[int], near: Neighbours, gone: list[bool]) -> tuple[list[Piece], list[int]]:
    """Nodes, branches and distances of each piece from its separator, and where the next level's pieces start."""
    level, later = [], []
    for start in pieces:
        order, parent, _ = walk(start, near, gone)
        centre = _separator(order, parent, near, gone)
        nodes, parents, distances = walk(centre, near, gone)
        branch = {centre: 0}
        for node in nodes[1:]:
            above = parents[node]
            branch[node] = branch[above] or len(later) + 1
            if above == centre:
                later.append(node)
        level.append((nodes, [branch[node] for node in nodes], [distances[node] for node in nodes]))
        gone[centre] = True
    return level, later


def walk(start: int, near: Neighbours, gone: list[bool]) -> tuple[list[int], dict[int, int], dict[int, float]]:
    """Nodes of a piece in the order of a search, and each one's parent and distance from the start."""
    order, parent, distance = [start], {start: -1}, {start: 0.0}
    for node in order:
        for other, length in near[node]:
            if not gone[other] and other not in parent:
                parent[other], distance[other] = node, distance[node] + length
                order.append(other)
    return order, parent, distance


def _separator(order: list[int], parent: dict[int, int], near: Neighbours, gone: list[bool]) -> int:
    """The node all of whose branches hold at most half of the piece."""
    size = dict.fromkeys(order, 1)
    for node in reversed(order[1:]):
        size[parent[node]] += size[node]
    node = order[0]
    while True:
        below = [o for o, _ in near[node] if not gone[o] and parent[o] == node and 2 * size[o] > len(order)]
        if not below:
            return node
        node = below[0]


def _as_entries(level: list[Piece], dtype: torch.dtype) -> Entries:
    """Rows of whole pieces, then rows of their branches; branches are numbered through the level, from 1;
    the separator itself is in none."""
    node = torch.tensor([i for nodes, _, _ in level for i in nodes])
    branch = torch.tensor([b for _, branches, _ in level for b in branches])
    distance = torch.tensor([d for _, _, distances in level for d in distances], dtype=dtype)
    piece = torch.repeat_interleave(torch.tensor([len(nodes) for nodes, _, _ in level]))
    inside = branch > 0
    group = torch.cat((piece, len(level) - 1 + branch[inside]))
    count = len(level) + int(branch.max())
    every = torch.cat((distance, distance[inside]))
    reach = torch.zeros(count, dtype=dtype).scatter_reduce(0, group, every, "amax")
    sign = torch.cat((torch.ones(len(node), dtype=torch.int8), -torch.ones(int(inside.sum()), dtype=torch.int8)))
    return Entries(torch.cat((node, node[inside])), group, every, reach[group], sign, count)


def spanning_forest(edges: Tensor, lengths: Tensor) -> Tensor:
    """The edges of a graph's minimum spanning tree, in the order of their lengths, by Kruskal's algorithm."""
    above = list(range(int(edges.max()) + 1))

    def root(node: int) -> int:
        while above[node] != node:
            above[node] = above[above[node]]
            node = above[node]
        return node

    chosen, pairs = [], edges.tolist()
    for i in lengths.argsort(stable=True).tolist():
        a, b = root(pairs[i][0]), root(pairs[i][1])
        if a != b:
            above[a] = b
            chosen.append(i)
    return torch.tensor(chosen, dtype=torch.long)
