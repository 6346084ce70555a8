"""Rounding of tree networks: orthogonal from the leaves to the root, truncated from the root to the leaves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.einsum import contract, symbol
from polyad.formats.networks.binary_tree import Tree, children, leaves, parents
from polyad.linalg import single_or_double, truncated_svd

Nodes = list[Tensor]


def round_tree(
    tree: Tree, nodes: Sequence[Tensor], rank: Sequence[int] | None, tol: float | None
) -> tuple[Tensor, ...]:
    """Cut the bonds of a tree to smaller ones.

    ``rank`` bounds every bond but the root's, ``tol`` the relative error of the whole. A bond is cut to the leading
    singular vectors of the tensor unfolded there. Cutting all bonds errs by no more than the root of the sum of the
    squares of what each cut leaves out, the two bonds of the root counting as one: the projections of the children
    follow those of the parents, so each adds an orthogonal error.
    """
    if len(nodes) == 1:
        return tuple(nodes)
    dtype = nodes[0].dtype
    orthonormal = orthogonal(tree, [single_or_double(x) for x in nodes])
    share = None if tol is None else tol / (2 * len(leaves(tree)) - 3) ** 0.5
    below = children(tree)
    bases: dict[int, Tensor] = {}
    weights: dict[int, Tensor] = {}
    for node, (_, pair) in enumerate(below):
        if pair is None:
            continue
        for side, child in enumerate(pair):
            if node == 0 and side == 1:
                continue  # cut together with the first
            x = orthonormal[node] if node == 0 else along(orthonormal[node], weights[node].mT, 2, inner=True)
            unfolded = x if node == 0 else x.movedim(x.ndim - 3 + side, -3).flatten(-2)
            limit = min(unfolded.shape[-2:])
            bound = None if rank is None else min(limit, rank[child - 1], rank[pair[1] - 1] if node == 0 else limit)
            u, s, vh = truncated_svd(unfolded, bound, tol=share)
            bases[child], weights[child] = u, u * s.unsqueeze(-2)
            if node == 0:
                bases[pair[1]], weights[pair[1]] = vh.mT, vh.mT * s.unsqueeze(-2)
    cut = []
    for node, (_, pair) in enumerate(below):
        x = orthonormal[node]
        for side, child in enumerate(pair or ()):
            x = along(x, bases[child].mH, side, inner=node != 0)
        cut.append((x if node == 0 else x @ broadcast_basis(bases[node], x)).to(dtype))
    return tuple(cut)


def broadcast_basis(basis: Tensor, x: Tensor) -> Tensor:
    """A basis (*batch, r, k) with as many dimensions as x, so that it multiplies the last one of x."""
    return basis.unsqueeze(-3) if x.ndim > basis.ndim else basis


def orthogonal(tree: Tree, nodes: Sequence[Tensor]) -> Nodes:
    """The same tensor with orthonormal nodes but for the root: columns of each, unfolded towards its parent."""
    tensors, up, below = list(nodes), parents(tree), children(tree)
    for node in reversed(range(1, len(tensors))):  # children come after their parents
        x = tensors[node]
        q, r = torch.linalg.qr(x if below[node][1] is None else x.flatten(-3, -2))
        tensors[node] = q.reshape(*x.shape[:-1], q.shape[-1])
        parent, side = up[node]
        tensors[parent] = along(tensors[parent], r, side, inner=parent != 0)
    return tensors


def along(x: Tensor, matrix: Tensor, side: int, *, inner: bool) -> Tensor:
    """A root (*batch, l, r), or an inner node (*batch, l, r, p), times a matrix (*batch, m, n) on one of its axes."""
    lead = "".join([symbol(-2 - k) for k in range(matrix.ndim - 2)])
    axes = "abc" if inner else "ab"
    return contract(f"{lead}{axes},{lead}z{axes[side]}->{lead}{axes.replace(axes[side], 'z')}", x, matrix)
