"""In which order to contract: exact for few tensors, and for many a seeded search that is refined piece by piece.

Sets of tensors and sets of letters are bit masks. A tree maps every set of more than one tensor that it forms to the
two sets that it is made of.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Sequence

EXACT = 8
"""Up to this many tensors the order is the best there is; larger orders are refined in pieces of this many."""

TRIALS = 64
"""The most orders that the search draws; networks that are cheap to contract get fewer."""

TRAFFIC = 16
"""Operations that writing one number counts for in large networks: small products wait for memory."""

Pairs = list[tuple[int, int]]
Tree = dict[int, tuple[int, int]]


def order(terms: Sequence[str], output: str, sizes: dict[str, int]) -> Pairs:
    """Pairs to contract: operands count from 0, the result of the k-th pair is number ``len(terms) + k``.

    Up to ``EXACT`` tensors have the fewest operations possible. More are ordered greedily from seeded starts, the
    best of which is improved by exact reordering of its subtrees; the answer is the same every time. Cost: 3ⁿ up
    to EXACT, some tenths of a second at 30 tensors.

    >>> order(("ab", "bc", "cd"), "ad", {"a": 9, "b": 9, "c": 1, "d": 9})
    [(0, 1), (3, 2)]
    >>> order(("ab", "bc", "cd"), "ad", {"a": 9, "b": 1, "c": 9, "d": 9})
    [(1, 2), (0, 3)]
    """
    graph = _Graph(terms, output, sizes)
    if len(terms) <= EXACT:
        tree, _ = _exact(graph, graph.masks, graph.kept, 0)
        return _numbered(tree, len(terms))
    tree = _greedy(graph, random.Random(0), 0.0)
    cost = graph.cost(tree)
    for trial in range(min(TRIALS, int(cost // 100_000))):
        drawn = random.Random(trial)
        other = _greedy(graph, drawn, 10 ** drawn.uniform(-2, 0.3))
        if graph.cost(other) < cost:
            tree, cost = other, graph.cost(other)
    for _ in range(8 if cost > 50_000 else 0):
        before = cost
        _refine(graph, tree)
        cost = graph.cost(tree)
        if cost > 0.999 * before:
            break
    return _numbered(tree, len(terms))


class _Graph:
    """The letters of every tensor, and what is left of them when tensors are joined."""

    def __init__(self, terms: Sequence[str], output: str, sizes: dict[str, int]) -> None:
        letters = {letter: 1 << i for i, letter in enumerate(dict.fromkeys("".join(terms)))}
        self.masks = [sum(letters[c] for c in set(term)) for term in terms]
        self.kept = sum(letters[c] for c in output)
        self.holders = {bit: sum(1 << i for i, m in enumerate(self.masks) if m & bit) for bit in letters.values()}
        self.edges = sum(b for b, held in self.holders.items() if held.bit_count() == 2 and not b & self.kept)
        self._sizes = {0: 1} | {letters[letter]: n for letter, n in sizes.items() if letter in letters}

    def size(self, mask: int) -> int:
        """The number of entries over these letters."""
        found = self._sizes.get(mask)
        if found is None:
            low = mask & -mask
            found = self._sizes[mask] = self._sizes[low] * self.size(mask ^ low)
        return found

    def joined(self, a: int, b: int, tensors: int) -> int:
        """The letters left when tensors of letters a and b are contracted to the join of this set of tensors."""
        left = (a ^ b) & self.edges
        for bit in _bits((a | b) & ~self.edges):
            if bit & self.kept or self.holders[bit] & ~tensors:
                left |= bit
        return left

    def price(self, both: int, after: int, traffic: int = TRAFFIC) -> int:
        """What a contraction over letters ``both`` that leaves ``after`` costs."""
        return self.size(both) * (1 if both == after else 2) + traffic * self.size(after)

    def letters(self, tree: Tree) -> dict[int, int]:
        """The letters of every set of a tree whose parts stand before what is made of them."""
        found = {1 << i: mask for i, mask in enumerate(self.masks)}
        for made in sorted(tree, key=int.bit_count):
            a, b = tree[made]
            found[made] = self.joined(found[a], found[b], made)
        return found

    def cost(self, tree: Tree) -> int:
        found = self.letters(tree)
        return sum(self.price(found[a] | found[b], found[made]) for made, (a, b) in tree.items())


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low
        mask ^= low


def _exact(graph: _Graph, masks: list[int], kept: int, traffic: int) -> tuple[Tree, int]:
    """The cheapest tree over tensors of these letters, by dynamic programming over all sets, and what it costs."""
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
        made = pending.pop()
        tree[made] = parts[made]
        pending += [part for part in parts[made] if part in parts]
    return tree, cost[whole]


def _greedy(graph: _Graph, rng: random.Random, heat: float) -> Tree:
    """Joins that shrink most first, with ``heat`` times a Gumbel number added to the logarithm of their worth."""
    live = {1 << i: mask for i, mask in enumerate(graph.masks)}
    queue: list[tuple[float, int, int, int]] = []
    tree: Tree = {}

    def offer(a: int, b: int) -> None:
        left = graph.joined(live[a], live[b], a | b)
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
            left = graph.joined(live[a], live[b], a | b)
        del live[a], live[b]
        tree[a | b], live[a | b] = (a, b), left
        for other, letters in live.items():
            if letters & left and other != a | b:
                offer(other, a | b)
    return tree


def _refine(graph: _Graph, tree: Tree) -> None:
    """Reorder exactly the topmost ``EXACT`` parts of every subtree, the costliest parts opened first."""
    found = graph.letters(tree)
    for node in sorted(tree, key=lambda made: (-graph.size(found[made]), made)):
        if node not in tree:
            continue  # a reordering above has done away with it
        tips, inner = list(tree[node]), [node]
        while len(tips) < EXACT and any(tip in tree for tip in tips):
            opened = max((tip for tip in tips if tip in tree), key=lambda tip: (graph.size(found[tip]), tip))
            tips.remove(opened)
            tips += tree[opened]
            inner.append(opened)
        if len(tips) < 3:
            continue
        before = sum(graph.price(found[tree[i][0]] | found[tree[i][1]], found[i]) for i in inner)
        parts, cost = _exact(graph, [found[tip] for tip in tips], found[node], TRAFFIC)
        if cost >= before:
            continue
        for made in inner:
            del tree[made]
        for made, pair in parts.items():
            joined, a, b = (sum(tips[bit.bit_length() - 1] for bit in _bits(part)) for part in (made, *pair))
            tree[joined] = (a, b)
        found = graph.letters(tree)


def _numbered(tree: Tree, n: int) -> Pairs:
    """The joins of a tree by number, parts before what is made of them."""
    numbers = {1 << i: i for i in range(n)}
    pairs: Pairs = []
    for made in sorted(tree, key=lambda made: (made.bit_count(), made)):
        a, b = tree[made]
        pairs.append((numbers[a], numbers[b]))
        numbers[made] = n + len(pairs) - 1
    return pairs
