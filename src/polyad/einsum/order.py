"""Contraction orders: exact for few tensors, and for many a seeded search that is refined piece by piece.

Sets of tensors and sets of letters are bit masks. A tree maps every set of more than one tensor that it forms to the
two sets that it is made of.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence

from polyad.einsum.graph import TRAFFIC, Graph, Tree, bits
from polyad.einsum.sweep import sweep_order

EXACT = 8
"""Up to this many tensors the order is the best there is; larger orders are refined in pieces of this many."""

TRIALS = 64
"""The most orders that the search draws; networks that are cheap to contract get fewer."""

LONG = 24
"""From more tensors than these on a sweep is taken where the network is a chain."""

REFINED = 6
"""How many of them, the best, are refined at most."""

Pairs = list[tuple[int, int]]


def order(terms: Sequence[str], output: str, sizes: dict[str, int]) -> Pairs:
    """Pairs to contract: operands count from 0, the result of the k-th pair is number ``len(terms) + k``.

    Up to ``EXACT`` tensors have the fewest operations possible. More are ordered greedily from seeded starts, the
    best of which is improved by exact reordering of its subtrees; the answer is the same every time. Cost: 3ⁿ up
    to EXACT, some tenths of a second at 30 tensors; chains of any length take a time linear in it.

    >>> order(("ab", "bc", "cd"), "ad", {"a": 9, "b": 9, "c": 1, "d": 9})
    [(0, 1), (3, 2)]
    >>> order(("ab", "bc", "cd"), "ad", {"a": 9, "b": 1, "c": 9, "d": 9})
    [(1, 2), (0, 3)]
    """
    swept = sweep_order(terms, output, sizes) if len(terms) > LONG else None
    if swept is not None:
        return swept
    graph = Graph(terms, output, sizes)
    if len(terms) <= EXACT:
        tree, _ = _exact(graph, graph.masks, graph.kept, 0)
        return _number_pairs(tree, len(terms))
    tree = _greedy(graph, random.Random(0), 0.0)
    candidates = [(graph.cost(tree), -1, tree)]
    trials = min(TRIALS, candidates[0][0] // 20_000)
    for trial in range(trials):
        rng = random.Random(trial)
        other = _greedy(graph, rng, 10 ** rng.uniform(-2, 0.3))
        candidates.append((graph.cost(other), trial, other))
    best = sorted(candidates)[: min(REFINED, 1 + candidates[0][0] // 500_000)]
    return _number_pairs(
        min((_refine_tree(graph, tree, cost) for cost, _, tree in best), key=lambda t: t[0])[1], len(terms)
    )


def _refine_tree(graph: Graph, tree: Tree, cost: int) -> tuple[int, Tree]:
    """A tree reordered until little is gained, and its cost."""
    before = math.inf
    while cost < 0.999 * before:
        _reorder_subtrees(graph, tree)
        before, cost = cost, graph.cost(tree)
    return cost, tree


def _exact(graph: Graph, masks: list[int], kept: int, traffic: int) -> tuple[Tree, int]:
    """The cheapest tree over tensors of these letters, by dynamic programming over all sets, and its cost."""
    whole = (1 << len(masks)) - 1
    union = [0] * (whole + 1)
    for chosen in range(1, whole + 1):
        low = chosen & -chosen
        union[chosen] = union[chosen ^ low] | masks[low.bit_length() - 1]
    left = [union[chosen] & (union[whole ^ chosen] | kept) for chosen in range(whole + 1)]
    for i, mask in enumerate(masks):
        left[1 << i] = mask
    cost, parts = [0] * (whole + 1), {}
    for chosen in range(1, whole + 1):
        if not chosen & (chosen - 1):
            continue
        low, after, best = chosen & -chosen, left[chosen], math.inf
        part = (chosen - 1) & chosen
        while part:
            if part & low:  # every split once
                other = chosen ^ part
                price = cost[part] + cost[other]
                if price < best:
                    price += graph.price(left[part] | left[other], after, traffic)
                    if price < best:
                        best, parts[chosen] = price, (part, other)
            part = (part - 1) & chosen
        cost[chosen] = int(best)
    tree: Tree = {}
    pending = [whole] if len(masks) > 1 else []
    while pending:
        subset = pending.pop()
        tree[subset] = parts[subset]
        pending += [part for part in parts[subset] if part in parts]
    return tree, cost[whole]


def _greedy(graph: Graph, rng: random.Random, heat: float) -> Tree:
    """Joins that shrink most first, with ``heat`` times a Gumbel number added to the logarithm of their worth."""
    live = {1 << i: mask for i, mask in enumerate(graph.masks)}
    queue: list[tuple[float, int, int, int]] = []
    tree: Tree = {}

    def offer(a: int, b: int) -> None:
        left = graph.letters_left(live[a], live[b], a | b)
        worth = math.log(graph.size(left)) - math.log(graph.size(live[a]) + graph.size(live[b]))
        noise = heat * math.log(-math.log(rng.random() or 0.5)) if heat else 0.0
        heapq.heappush(queue, (worth + noise, a, b, left))

    tensors = list(live)
    for i, a in enumerate(tensors):
        for b in tensors[i + 1 :]:
            if live[a] & live[b]:
                offer(a, b)
    while len(live) > 1:
        if queue:
            _, a, b, left = heapq.heappop(queue)
            if a not in live or b not in live:
                continue
        else:  # what is not connected is joined smallest first
            a, b = sorted(live, key=lambda chosen: (graph.size(live[chosen]), chosen))[:2]
            left = graph.letters_left(live[a], live[b], a | b)
        del live[a], live[b]
        tree[a | b], live[a | b] = (a, b), left
        for other, letters in live.items():
            if letters & left and other != a | b:
                offer(other, a | b)
    return tree


def _reorder_subtrees(graph: Graph, tree: Tree) -> None:
    """Reorder exactly the topmost ``EXACT`` parts of every subtree, the costliest parts opened first."""
    masks = graph.letters(tree)
    for node in sorted(tree, key=lambda subset: (-graph.size(masks[subset]), subset)):
        if node not in tree:
            continue  # a reordering above has done away with it
        tips, inner = list(tree[node]), [node]
        while len(tips) < EXACT and any(tip in tree for tip in tips):
            opened = max((tip for tip in tips if tip in tree), key=lambda tip: (graph.size(masks[tip]), tip))
            tips.remove(opened)
            tips += tree[opened]
            inner.append(opened)
        if len(tips) < 3:
            continue
        before = sum(graph.price(masks[tree[i][0]] | masks[tree[i][1]], masks[i]) for i in inner)
        parts, cost = _exact(graph, [masks[tip] for tip in tips], masks[node], TRAFFIC)
        if cost >= before:
            continue
        for subset in inner:
            del tree[subset]
        for subset, pair in parts.items():
            joined, a, b = (sum(tips[bit.bit_length() - 1] for bit in bits(part)) for part in (subset, *pair))
            tree[joined] = (a, b)
        masks = graph.letters(tree)


def _number_pairs(tree: Tree, n: int) -> Pairs:
    """The pairs of a tree by number, each after the pairs that its members come from."""
    numbers = {1 << i: i for i in range(n)}
    pairs: Pairs = []
    for subset in sorted(tree, key=lambda subset: (subset.bit_count(), subset)):
        a, b = tree[subset]
        pairs.append((numbers[a], numbers[b]))
        numbers[subset] = n + len(pairs) - 1
    return pairs
