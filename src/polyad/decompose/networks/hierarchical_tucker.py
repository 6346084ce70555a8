"""The hierarchical Tucker decomposition, from the leaves to the root."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import TreeNetwork
from polyad.formats.networks.binary_tree import Tree, balanced_tree, children, leaves
from polyad.linalg import left_singular, near_unit, truncated_svd

_GRAM = 1e-6  # below this share of the norm, singular values are taken from the matrix and not from its Gram matrix


@method(
    "decompose",
    makes=TreeNetwork,
    example={"rank": 2},
    papers=(
        Paper(
            "Grasedyck",
            2010,
            "Hierarchical singular value decomposition of tensors",
            "doi:10.1137/090764189",
        ),
    ),
)
def hierarchical_tucker(
    x: Tensor,
    rank: int | tuple[int, ...] | None = None,
    *,
    tol: float | None = None,
    tree: Tree | None = None,
    batch: int = 0,
) -> TreeNetwork:
    """A tree network with orthonormal nodes below its root, cut node by node from the leaves to the root.

    x has shape (*batch, I_1, …, I_N), ``batch`` counting the leading dimensions. ``tree`` nests pairs of mode
    numbers and is balanced if None. ``rank`` is one number, or one for each node but the root in the tree's order
    (``TreeNetwork.rank``); bonds that cannot be so large are as large as they can. ``tol`` takes the least ranks of
    each cut for which the relative Frobenius error stays below it; what a cut leaves of its share goes to the later
    ones. Of a batch, each tensor is within ``tol``.

    Quasi-optimal: within a factor √(2N - 3) of the best. Costs one Gram matrix of every unfolding of what is left,
    the widest mode first. Nodes have x's dtype; half precision is computed in float32. Departs from the paper in
    truncating sequentially: every cut sees what the cuts before have left.

    Raises ValueError for NaN and infinities, a tree of other modes, and unless one of rank and tol is given.

    >>> x = torch.ones(3, 4, 5, 6) + torch.arange(6.0)
    >>> hierarchical_tucker(x, tol=1e-4).rank, hierarchical_tucker(x, 2, tree=(0, (1, (2, 3)))).rank
    ((1, 1, 1, 1, 1, 1), (2, 2, 2, 2, 2, 2))
    """
    _check.floating("x", x)
    _check.batch(batch, x, 1)
    _check.exactly_one(rank=rank, tol=tol)
    if tol is not None:
        _check.tolerance(tol)
    tree = balanced_tree(x.ndim - batch) if tree is None else tree
    if sorted(leaves(tree)) != list(range(x.ndim - batch)):
        raise ValueError(f"tree={tree} must nest the {x.ndim - batch} modes of x, 0 to {x.ndim - batch - 1}")
    if isinstance(tree, int):
        return TreeNetwork(tree, (_check.finite("x", x),))
    ranks = _ranks(rank, 2 * len(leaves(tree)) - 2)
    work, scale = near_unit(x if x.dtype in (torch.float32, torch.float64) else x.float(), x.ndim - batch)
    nodes = _cut_upwards(work, batch, tree, ranks, tol)
    root = nodes[0] if scale is None else nodes[0] * scale[..., None, None]
    return TreeNetwork(tree, tuple([node.to(x.dtype).contiguous() for node in (root, *nodes[1:])]))


def _ranks(rank: int | tuple[int, ...] | None, bonds: int) -> list[int] | None:
    if rank is None:
        return None
    ranks = [rank] * bonds if isinstance(rank, int) else list(rank)
    if len(ranks) != bonds or min(ranks) < 1:
        raise ValueError(f"rank={rank} must be a number from 1, or one for each of the {bonds} nodes below the root")
    return ranks


def _cut_upwards(x: Tensor, batch: int, tree: Tree, ranks: list[int] | None, tol: float | None) -> list[Tensor]:
    """Cut off the nodes: leaves, widest first, then inner nodes upwards; the rest is the root."""
    below = children(tree)
    axes = {mode: node for node, (mode, pair) in enumerate(below) if pair is None}
    order = [axes[mode] for mode in sorted(axes)]  # the node whose bond each axis of the core is
    by_width = sorted(order, key=lambda node: -x.shape[batch + below[node][0]])
    inner = [node for node in reversed(range(1, len(below))) if below[node][1] is not None]
    core, nodes = x, {}
    left = None if tol is None else (tol * (1 - 1e-9)) ** 2 * _squares(core, batch)
    for place, node in enumerate([*by_width, *inner]):
        taken = [node] if below[node][1] is None else list(below[node][1] or ())
        core = core.movedim([batch + order.index(one) for one in taken], [batch + i for i in range(len(taken))])
        order = [node] + [one for one in order if one not in taken]
        sizes = core.shape[batch : batch + len(taken)]
        matrix = core.flatten(batch, batch + len(taken) - 1).flatten(batch + 1)
        limit = min(matrix.shape[-2:])
        cuts = len(below) - 1 - place
        share, energy = _share(left, matrix, batch, cuts)
        basis = _basis(matrix, None if ranks is None else min(limit, ranks[node - 1]), share)
        rest = core.shape[batch + len(taken) :]
        matrix = basis.mT @ matrix
        if left is not None:  # what a cut left out is a difference, lost in rounding where little was allowed
            noise = 100 * torch.finfo(core.dtype).eps
            lost = left / cuts if (share or 0) ** 2 < noise else (energy - _squares(matrix, batch)).clamp(min=0)
            left = (left - lost).clamp(min=0)
        core = matrix.reshape(*matrix.shape[: batch + 1], *rest)
        nodes[node] = basis.reshape(*basis.shape[:-2], *sizes, basis.shape[-1])
    first = order.index(1)
    nodes[0] = core if first == 0 else core.mT
    return [nodes[node] for node in range(len(below))]


def _squares(x: Tensor, batch: int) -> Tensor:
    return x.detach().double().square().flatten(batch).sum(-1)


def _share(left: Tensor | None, matrix: Tensor, batch: int, cuts: int) -> tuple[float | None, Tensor]:
    """The relative error allowed to this cut, an equal part of the squared error that remains, and all squares."""
    energy = _squares(matrix, batch)
    if left is None:
        return None, energy
    return min(0.999, float((left / cuts / energy).masked_fill(energy == 0, 0).min()) ** 0.5), energy


def _basis(matrix: Tensor, rank: int | None, share: float | None) -> Tensor:
    """Leading left singular vectors, through the Gram matrix where that resolves them and no gradient is needed."""
    if matrix.requires_grad or (share is not None and share < _GRAM):
        return truncated_svd(matrix, rank, tol=share)[0]
    return left_singular(matrix, rank, tol=share)[0]
