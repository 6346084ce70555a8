"""Binary trees as nested pairs of mode numbers; nodes count in preorder, the root is 0."""

from __future__ import annotations

from typing import TypeAlias, Union

Tree: TypeAlias = Union[int, tuple["Tree", "Tree"]]  # noqa: UP007 - a recursive alias cannot be written with |
Below = tuple[int, tuple[int, int] | None]


def leaves(tree: Tree) -> list[int]:
    """The mode numbers from left to right.

    >>> leaves(((2, 0), 1))
    [2, 0, 1]
    """
    if isinstance(tree, int):
        return [tree]
    if not isinstance(tree, tuple) or len(tree) != 2:
        raise ValueError(f"tree={tree} is no pair of trees and no mode number; nest pairs such as ((0, 1), 2)")
    return leaves(tree[0]) + leaves(tree[1])


def children(tree: Tree) -> list[Below]:
    """For every node its mode, or -1, and the numbers of its two children, or None for a leaf.

    >>> children((1, 0))
    [(-1, (1, 2)), (1, None), (0, None)]
    """
    nodes: list[Below] = []

    def visit(part: Tree) -> int:
        number = len(nodes)
        nodes.append((-1, None))
        if isinstance(part, int):
            nodes[number] = (part, None)
        else:
            nodes[number] = (-1, (visit(part[0]), visit(part[1])))
        return number

    visit(tree)
    return nodes


def parents(tree: Tree) -> dict[int, tuple[int, int]]:
    """For every node but the root its parent and the side on which it stands there, 0 or 1."""
    return {
        child: (node, side)
        for node, (_, pair) in enumerate(children(tree))
        if pair is not None
        for side, child in enumerate(pair)
    }


def balanced_tree(n: int, first: int = 0) -> Tree:
    """The tree that halves the modes again and again.

    >>> balanced_tree(5)
    (((0, 1), 2), (3, 4))
    """
    if n == 1:
        return first
    half = (n + 1) // 2
    return (balanced_tree(half, first), balanced_tree(n - half, first + half))


def without(tree: Tree, leaf: int) -> Tree:
    """The tree without the leaf at this node; later modes move up by one.

    >>> without(((0, 1), 2), 3)
    (0, 1)
    """
    gone = children(tree)[leaf][0]

    def visit(part: Tree) -> Tree | None:
        if isinstance(part, int):
            return None if part == gone else part - (part > gone)
        first, second = visit(part[0]), visit(part[1])
        if first is None or second is None:
            return second if first is None else first
        return (first, second)

    left = visit(tree)
    assert left is not None
    return left
