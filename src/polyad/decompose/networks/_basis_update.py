"""One step of a tree network under a linear differential equation: every node moved from the same start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.einsum import contract
from polyad.formats.networks.binary_tree import Below, Tree, children
from polyad.formats.networks.tree_rounding import along

Terms = list[Tensor]
"""For every mode of a tensor the factors of all terms of an operator, (K, I_n, I_n)."""


def basis_update(tree: Tree, nodes: list[Tensor], terms: Terms, h: float) -> list[Tensor]:
    """Nodes of doubled bases after a time h; ``nodes`` are orthonormal but for the root."""
    below = children(tree)
    inside = _project_terms(below, nodes, terms)
    centred, rest, outside = _centre_nodes(below, nodes, inside)
    moved: list[Tensor] = []
    for node, (mode, pair) in enumerate(below):
        down = (terms[mode],) if pair is None else (inside[pair[0]], inside[pair[1]])
        moved.append(_flow(centred[node], (*down, outside[node])[: centred[node].ndim], h))
    new: dict[int, Tensor] = {}  # for each node what its new directions hold, (new, old bond to the parent)
    wider = list(nodes)
    for node in reversed(range(len(below))):
        pair = below[node][1]
        x, old = moved[node], nodes[node]
        if pair is not None:
            x = _augment(x, [new[child] for child in pair], [rest[child] for child in pair])
            old = torch.nn.functional.pad(old, _pad_widths(old, x))
        if node == 0:
            wider[0] = x
            continue
        flat, basis = x.flatten(0, -2), old.flatten(0, -2)
        fresh = _complement(basis, flat)
        new[node] = fresh.mH @ flat
        wider[node] = torch.cat((basis, fresh), 1).reshape(*x.shape[:-1], -1)
    return wider


def _project_terms(below: list[Below], nodes: list[Tensor], terms: Terms) -> list[Tensor]:
    """Project the terms onto the basis of each node's subtree, (K, r, r)."""
    projected: list[Tensor] = [nodes[0]] * len(nodes)
    for node in reversed(range(1, len(nodes))):
        mode, pair = below[node]
        if pair is None:
            projected[node] = contract("ia,kij,jb->kab", nodes[node].conj(), terms[mode], nodes[node])
        else:
            x = nodes[node]
            projected[node] = contract("lra,klm,krs,msb->kab", x.conj(), projected[pair[0]], projected[pair[1]], x)
    return projected


def _centre_nodes(
    below: list[Below], nodes: list[Tensor], inside: list[Tensor]
) -> tuple[list[Tensor], dict[int, Tensor], list[Tensor]]:
    """Move the weight to each node in turn: its tensor, its parent's orthonormal rest, and the terms outside."""
    centred, outside = list(nodes), list(inside)
    rest: dict[int, Tensor] = {}
    for node, (_, pair) in enumerate(below):
        for side, child in enumerate(pair or ()):
            x = centred[node].movedim(side, -1)
            q, s = torch.linalg.qr(x.flatten(0, -2))
            q = q.reshape(*x.shape[:-1], -1)
            rest[child] = q.movedim(-1, side)
            centred[child] = nodes[child] @ s.mT
            other = inside[(pair or ())[1 - side]]
            if node == 0:
                outside[child] = contract("ra,krs,sb->kab", q.conj(), other, q)
            else:
                outside[child] = contract("rpa,krs,kpq,sqb->kab", q.conj(), other, outside[node], q)
    return centred, rest, outside


def _flow(x: Tensor, factors: Sequence[Tensor], h: float) -> Tensor:
    """x after a time h under the sum of products of these factors, one an axis: a Runge-Kutta step of order four."""
    from_, to = "abc"[: x.ndim], "xyz"[: x.ndim]
    expression = ",".join([from_, *[f"k{new}{old}" for new, old in zip(to, from_, strict=True)]]) + f"->{to}"
    total, power = x, x
    for order in range(1, 5):  # of a linear equation, that is its exponential series up to the fourth power
        power = contract(expression, power, *factors) * (h / order)
        total = total + power
    return total


def _augment(x: Tensor, new: Sequence[Tensor], rest: Sequence[Tensor]) -> Tensor:
    """Extend a centred transfer tensor by its children's new directions; zero where both are new."""
    first, second = (along(r, m, side, inner=x.ndim == 3) for side, (m, r) in enumerate(zip(new, rest, strict=True)))
    corner = x.new_zeros(len(new[0]), len(new[1]), *x.shape[2:])
    return torch.cat((torch.cat((x, second), 1), torch.cat((first, corner), 1)), 0)


def _pad_widths(old: Tensor, x: Tensor) -> list[int]:
    """Widths of zeros that bring all axes of a tensor but the last to the size of x's."""
    grown = [n - m for n, m in zip(x.shape, old.shape, strict=True)]
    return [0, 0, *[n for size in reversed(grown[:-1]) for n in (0, size)]]


def _complement(basis: Tensor, x: Tensor) -> Tensor:
    """Orthonormal columns that, with the orthonormal ``known``, span the columns of x."""
    left = min(x.shape[1], len(basis) - basis.shape[1])
    q, _ = torch.linalg.qr(torch.cat((basis, x), 1))
    fresh = q[:, basis.shape[1] : basis.shape[1] + left]
    fresh = fresh - basis @ (basis.mH @ fresh)
    return torch.linalg.qr(fresh)[0]
