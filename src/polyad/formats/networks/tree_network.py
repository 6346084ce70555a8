"""Trees of three-way transfer tensors with a matrix at every leaf: hierarchical Tucker and other binary trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.einsum import contract, symbol
from polyad.formats.networks import tree_rounding as _tree_rounding
from polyad.formats.networks.binary_tree import Tree, balanced_tree, children, leaves, parents, without
from polyad.formats.networks.multilinear import Multilinear
from polyad.formats.networks.tensor_train import bond_ranks


@dataclass(frozen=True, eq=False, repr=False)
class TreeNetwork(Multilinear):
    """A tensor network over a binary tree whose leaves are the modes: the hierarchical Tucker format, any tree.

    ``tree`` nests pairs of mode numbers: ``((0, 1), (2, 3))`` is balanced, ``(0, (1, (2, 3)))`` a train. Its nodes
    count from the root down, a node before its left subtree and that before its right one: node 0 is the root.
    ``nodes`` holds one tensor each: a leaf (*batch, I_n, r), an inner node (*batch, r_left, r_right, r), the root
    (*batch, r_left, r_right), where r is the size of the bond to the parent. A tree of one leaf is (*batch, I).

    >>> x = TreeNetwork(
    ...     (0, (1, 2)), (torch.ones(2, 2), torch.ones(3, 2), torch.ones(2, 2, 2), torch.ones(4, 2), torch.ones(5, 2))
    ... )
    >>> x.shape, x.rank, x[0].tree, x[:, 1].shape
    ((3, 4, 5), (2, 2, 2, 2), (0, 1), (3, 5))
    """

    tree: Tree
    nodes: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        modes = leaves(self.tree)
        if sorted(modes) != list(range(len(modes))):
            raise ValueError(f"tree={self.tree} must nest pairs of the mode numbers 0 to N - 1, each of them once")
        terms = self.network()[0].split("->")[0].split(",")
        shapes = [tuple(node.shape) for node in self.nodes]
        if len(shapes) != len(terms) or any(len(s) < len(t) for s, t in zip(shapes, terms, strict=False)):
            raise ValueError(f"nodes of shapes {shapes} do not fit tree={self.tree}, which has {len(terms)} nodes")
        lead = {shape[: len(shape) - len(term)] for shape, term in zip(shapes, terms, strict=True)}
        sizes: dict[str, set[int]] = {}
        for term, shape in zip(terms, shapes, strict=True):
            for letter, n in zip(term, shape[len(shape) - len(term) :], strict=True):
                sizes.setdefault(letter, set()).add(n)
        if len(lead) != 1 or any(len(values) > 1 for values in sizes.values()):
            raise ValueError(
                f"nodes of shapes {shapes} do not agree in tree={self.tree}: leaves (*batch, I_n, r), inner nodes "
                "(*batch, r_left, r_right, r) and a root (*batch, r_left, r_right), root first, are needed"
            )

    @property
    def rank(self) -> tuple[int, ...]:
        """The bond of every node but the root with its parent, in the order of the nodes."""
        return tuple([node.shape[-1] for node in self.nodes[1:]])

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        below = children(self.tree)
        n = len(leaves(self.tree))
        terms = []
        for node, (mode, pair) in enumerate(below):
            up = symbol(n + node) if node else ""
            terms.append((symbol(mode) if pair is None else symbol(n + pair[0]) + symbol(n + pair[1])) + up)
        return f"{','.join(terms)}->{''.join([symbol(i) for i in range(n)])}", self.nodes

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(self.tree, tuple(operands))

    def without_modes(self, operands: tuple[Tensor, ...], gone: dict[str, int]) -> Self:
        """The tree without some leaves: the rest of a leaf goes into its parent, and that into the leaf's sibling."""
        tree, nodes = self.tree, list(operands)
        for leaf in sorted(gone.values(), reverse=True):
            tree, nodes = _prune_leaf(tree, nodes, leaf)
        return type(self)(tree, tuple(nodes))

    def transpose(self) -> TreeNetwork:
        if self.ndim - self.batch != 2:
            raise ValueError(f"a tree of shape {self.shape} is no matrix; only a tree of two leaves is transposed")
        root, first, second = self.nodes
        return TreeNetwork(self.tree, (root.mT, second, first))

    def rows(self, index: Tensor) -> Tensor:
        root, first, second = self.nodes
        if self.tree == (1, 0):
            return second[index] @ (root.mT @ first.mT)
        return first[index] @ (root @ second.mT)

    def round(self, rank: int | tuple[int, ...] | None = None, *, tol: float | None = None) -> Self:
        """The same tree with smaller bonds: at most ``rank``, or with a relative Frobenius error of at most ``tol``.

        ``rank`` is one number for all bonds or one each, as ``rank`` gives them. Each of a batch is within ``tol``;
        bonds are the largest that one of them needs. Quasi-optimal: within a factor √(2N - 3) of the best tree of
        these ranks. Differentiable where no bond is larger than the rank there. Costs O(Σ r⁴) for bonds r, and
        O(I r²) a leaf.
        """
        _check.exactly_one(rank=rank, tol=tol)
        if tol is not None:
            _check.tolerance(tol)
        ranks = None if rank is None else bond_ranks(rank, len(self.rank), f"{self!r}")
        return type(self)(self.tree, _tree_rounding.round_tree(self.tree, self.nodes, ranks, tol))

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal nodes on the balanced tree, of bonds of 2, or 1 where the mode or its complement has no more."""
        tree = balanced_tree(len(shape))
        below, sizes = children(tree), [1] * (2 * len(shape) - 1)
        for node in reversed(range(len(below))):
            mode, pair = below[node]
            sizes[node] = min(2, shape[mode] if pair is None else sizes[pair[0]] * sizes[pair[1]])
        nodes = []
        for node, (mode, pair) in enumerate(below):
            down = (shape[mode],) if pair is None else (sizes[pair[0]], sizes[pair[1]])
            size = (*down, sizes[node]) if node else down
            nodes.append(torch.randn(size, generator=generator, dtype=dtype))
        return cls(tree, tuple(nodes))


def _prune_leaf(tree: Tree, nodes: list[Tensor], leaf: int) -> tuple[Tree, list[Any]]:
    """Take away a leaf, whose tensor (*batch, r) has lost its mode. Returns the tree and its nodes."""
    parent, side = parents(tree)[leaf]
    _, pair = children(tree)[parent]
    assert pair is not None
    sibling = pair[1 - side]
    lead = "".join([symbol(-2 - k) for k in range(nodes[leaf].ndim - 1)])
    pieces = ("b", "a") if side else ("a", "b")
    up = "c" if parent else ""
    joint = contract(f"{lead}a,{lead}{''.join(pieces)}{up}->{lead}b{up}", nodes[leaf], nodes[parent])
    below = nodes[sibling]
    inner = "".join([symbol(100 + k) for k in range(below.ndim - len(lead) - 1)])
    nodes[sibling] = contract(f"{lead}{inner}b,{lead}b{up}->{lead}{inner}{up}", below, joint)
    left = [node for i, node in enumerate(nodes) if i not in (leaf, parent)]
    return without(tree, leaf), left
