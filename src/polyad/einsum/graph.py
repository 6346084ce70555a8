"""Graphs of tensors that share letters, and the cost of contracting them.

Sets of tensors and sets of letters are bit masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

TRAFFIC = 16
"""Operations that writing one number counts for in large networks: small products wait for memory."""

Tree = dict[int, tuple[int, int]]
"""Every set of more than one tensor that is formed, and the two sets that it is made of."""


class Graph:
    """The letters of every tensor, and those left when tensors are contracted."""

    def __init__(self, terms: Sequence[str], output: str, sizes: dict[str, int]) -> None:
        letters = {letter: 1 << i for i, letter in enumerate(dict.fromkeys("".join(terms)))}
        self.masks = [sum(letters[c] for c in set(term)) for term in terms]
        self.kept = sum(letters[c] for c in output)
        self.holders = {bit: sum(1 << i for i, m in enumerate(self.masks) if m & bit) for bit in letters.values()}
        self.edges = sum(b for b, tensors in self.holders.items() if tensors.bit_count() == 2 and not b & self.kept)
        self._sizes = {0: 1} | {letters[letter]: n for letter, n in sizes.items() if letter in letters}

    def size(self, mask: int) -> int:
        """The number of entries over these letters."""
        entries = self._sizes.get(mask)
        if entries is None:
            low = mask & -mask
            entries = self._sizes[mask] = self._sizes[low] * self.size(mask ^ low)
        return entries

    def letters_left(self, a: int, b: int, tensors: int) -> int:
        """The letters left when tensors of letters a and b are contracted to the join of this set of tensors."""
        left = (a ^ b) & self.edges
        for bit in bits((a | b) & ~self.edges):
            if bit & self.kept or self.holders[bit] & ~tensors:
                left |= bit
        return left

    def price(self, both: int, after: int, traffic: int = TRAFFIC) -> int:
        """The cost of a contraction over letters ``both`` that leaves ``after``: operations, and numbers written."""
        return self.size(both) * (1 if both == after else 2) + traffic * self.size(after)

    def letters(self, tree: Tree) -> dict[int, int]:
        """The letters of every set of tensors in a tree."""
        masks = {1 << i: mask for i, mask in enumerate(self.masks)}
        for subset in sorted(tree, key=int.bit_count):
            a, b = tree[subset]
            masks[subset] = self.letters_left(masks[a], masks[b], subset)
        return masks

    def cost(self, tree: Tree) -> int:
        masks = self.letters(tree)
        return sum(self.price(masks[a] | masks[b], masks[subset]) for subset, (a, b) in tree.items())


def bits(mask: int) -> Iterator[int]:
    """The powers of two that a mask is the sum of, the least first."""
    while mask:
        low = mask & -mask
        yield low
        mask ^= low
