"""Evolution of tree networks under linear differential equations, all nodes of a step at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.einsum import contract
from polyad.formats import TreeNetwork
from polyad.formats.networks.binary_tree import Below, Tree, children
from polyad.formats.networks.tree_rounding import along, orthogonal

Terms = list[Tensor]  # for every mode the factors of all terms, (K, I_n, I_n)


@method(
    "function",
    papers=(
        Paper(
            "Ceruti, Kusch, Lubich, Sulz",
            2024,
            "A parallel Basis Update and Galerkin Integrator for Tree Tensor Networks",
            "arXiv:2412.00858",
            handle="ttn-bug",
        ),
    ),
)
def ttn_bug(
    start: TreeNetwork,
    operator: Sequence[Mapping[int, Tensor]],
    time: float,
    *,
    steps: int,
    tol: float = 1e-8,
    rank: int | None = None,
    callback: Callback | None = None,
) -> TreeNetwork:
    """The solution at ``time`` of dY/dt = Σ_k (⊗_n A_kn) Y from Y = ``start``, in ``steps`` basis updates.

    ``operator`` lists the terms; each maps modes to matrices (I_n, I_n), other modes stay as they are. ``start`` is
    one tree network without batch dimensions, of float32 or float64 or, for a Schrödinger equation, complex; of a
    complex one ``to_dense`` and ``round`` may be used.

    In a step all leaves and all transfer tensors move from the same start, each in the frame of the others, by a
    Runge-Kutta step of order four; bases double, are filled with what is new, and are rounded to ``tol`` (the
    relative error of each rounding) and to at most ``rank``. The error is of first order in the step and does not
    grow as singular values fall to zero. A step costs O(K r⁴) a node for K terms and bonds r. Detached.
    ``callback(step, steps, {"norm": …, "rank": …})`` follows each step.

    Departs from the paper in that the right-hand side is linear and constant, given in terms of product form.

    >>> grow = ttn_bug(
    ...     TreeNetwork((0, 1), (torch.ones(1, 1), torch.ones(2, 1), torch.ones(3, 1))),
    ...     [{0: torch.diag(torch.tensor([1.0, 0.0]))}],
    ...     1.0,
    ...     steps=10,
    ... )
    >>> grow.to_dense()[:, 0].round(decimals=1)
    tensor([2.7000, 1.0000])
    """
    terms = _terms(start, operator)
    if steps < 1 or (rank is not None and rank < 1):
        raise ValueError(f"steps={steps} and rank={rank} must be at least 1")
    _check.tolerance(tol)
    tree, now = start.tree, TreeNetwork(start.tree, tuple([node.detach() for node in start.nodes]))
    for step in range(steps):
        now = TreeNetwork(tree, tuple(_step(tree, orthogonal(tree, now.nodes), terms, time / steps)))
        now = now.round(tol=tol)
        if rank is not None and max(now.rank) > rank:
            now = now.round(rank)
        if callback is not None:
            callback(step, steps, {"norm": float(now.nodes[0].norm()), "rank": float(max(now.rank))})
    return now


def _terms(start: TreeNetwork, operator: Sequence[Mapping[int, Tensor]]) -> Terms:
    allowed = (torch.float32, torch.float64, torch.complex64, torch.complex128)
    dtype = start.nodes[0].dtype
    if start.batch or dtype not in allowed or isinstance(start.tree, int):
        raise ValueError(f"start={start!r} of {dtype} must be one tree of two or more modes in one of {allowed}")
    for k, term in enumerate(operator):
        for mode, matrix in term.items():
            if not 0 <= mode < start.ndim or tuple(matrix.shape) != (start.shape[mode],) * 2:
                raise ValueError(
                    f"operator[{k}] maps mode {mode} to a matrix of shape {tuple(matrix.shape)}; start of shape "
                    f"{start.shape} needs square matrices of its modes' sizes"
                )
    if not operator:
        raise ValueError("operator is empty; give at least one term, such as {0: matrix}")
    root, dtype = start.nodes[0], start.nodes[0].dtype
    return [
        torch.stack([term.get(mode, torch.eye(n)).detach().to(root.device, dtype) for term in operator])
        for mode, n in enumerate(start.shape)
    ]


def _step(tree: Tree, nodes: list[Tensor], terms: Terms, h: float) -> list[Tensor]:
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
