"""Contraction orders of long networks that are chains of small pieces, in time linear in their length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

COMMON = 8
"""A letter of more tensors than these names no neighbours: it is a batch's, or a sum that all share."""


def sweep_order(terms: Sequence[str], output: str, sizes: dict[str, int]) -> list[tuple[int, int]] | None:
    """Pairs as ``order`` gives them, absorbing one neighbour after another from an end; None where the front grows.

    Each step takes the neighbour that leaves the fewest numbers. The front grows where it exceeds the largest
    operand by more than the largest letter: then the network is no chain, and another order is better.

    >>> sweep_order(("ab", "bc", "cd"), "", {"a": 2, "b": 2, "c": 2, "d": 2})
    [(0, 1), (3, 2)]
    """
    n = len(terms)
    holders: dict[str, list[int]] = {}
    for number, term in enumerate(terms):
        for letter in dict.fromkeys(term):
            holders.setdefault(letter, []).append(number)
    waiting = Counter({letter: len(numbers) for letter, numbers in holders.items()})
    near = [
        {other for letter in term if len(holders[letter]) <= COMMON for other in holders[letter]} - {number}
        for number, term in enumerate(terms)
    ]
    most = max(_entries(term, sizes) for term in terms) * max(sizes.values(), default=1)
    outer, joined, following = set(output), [False] * n, 0
    number = min(range(n), key=lambda i: (len(near[i]), i))
    front, last, candidates, pairs = set(terms[number]), number, set(near[number]), []
    joined[number] = True
    waiting.subtract(set(terms[number]))
    while len(pairs) < n - 1:
        if not candidates:
            while joined[following]:
                following += 1
            candidates.add(following)
        after = {i: _letters_left(front, terms[i], outer, waiting) for i in candidates}
        number = min(candidates, key=lambda i: (_entries(after[i], sizes), i))
        front = after[number]
        if _entries(front, sizes) > most:
            return None
        pairs.append((last, number))
        last, joined[number] = n + len(pairs) - 1, True
        waiting.subtract(set(terms[number]))
        candidates |= near[number]
        candidates = {i for i in candidates if not joined[i]}
    return pairs


def _letters_left(front: set[str], term: str, outer: set[str], waiting: Counter[str]) -> set[str]:
    """The letters that are left when the front takes in a tensor that is still among those waiting."""
    inside = set(term)
    return {c for c in front | inside if c in outer or waiting[c] > (c in inside)}


def _entries(letters: set[str] | str, sizes: dict[str, int]) -> int:
    return math.prod([sizes[c] for c in letters])
