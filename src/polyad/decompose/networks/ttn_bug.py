"""Evolution of tree networks under linear differential equations, all nodes of a step at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.networks._basis_update import Terms, basis_update
from polyad.formats import TreeNetwork
from polyad.formats.networks.tree_rounding import orthogonal

Operator = Sequence[Mapping[int, Tensor]]
"""The terms of a sum of products: each maps modes to matrices, other modes stay as they are."""


@method(
    "solve",
    example={
        "arguments": lambda g: _draw_evolution(g),
        "off": lambda end, **problem: _error(end, **problem),
        "scale": ("start",),
    },
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
    operator: Operator,
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
    if not math.isfinite(time):
        raise ValueError(f"time={time} is no finite time; give the time that the evolution takes")
    _check.tolerance(tol)
    tree, now = start.tree, TreeNetwork(start.tree, tuple([node.detach() for node in start.nodes]))
    for step in range(steps):
        now = TreeNetwork(tree, tuple(basis_update(tree, orthogonal(tree, now.nodes), terms, time / steps)))
        now = now.round(tol=tol)
        if rank is not None and max(now.rank) > rank:
            now = now.round(rank)
        if callback is not None:
            callback(step, steps, {"norm": float(now.nodes[0].norm()), "rank": float(max(now.rank))})
    return now


def _terms(start: TreeNetwork, operator: Operator) -> Terms:
    allowed = (torch.float32, torch.float64, torch.complex64, torch.complex128)
    dtype = start.nodes[0].dtype
    if start.batch or dtype not in allowed or isinstance(start.tree, int):
        raise ValueError(f"start={start!r} of {dtype} must be one tree of two or more modes in one of {allowed}")
    for node in start.nodes:
        _check.finite("a node of start", node)
    for k, term in enumerate(operator):
        for mode, matrix in term.items():
            _check.finite(f"operator[{k}]", matrix)
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


def _draw_evolution(generator: Generator) -> dict[str, Any]:
    """A tensor of three modes and low rank, moved within each mode and between two of them."""
    start = TreeNetwork.random((3, 4, 3), generator=generator, dtype=torch.float64)
    inner, left, right = (torch.randn(n, n, generator=generator, dtype=torch.float64) / 2 for n in (3, 4, 3))
    return {"start": start, "operator": [{0: inner}, {1: left, 2: right}], "time": 0.1, "steps": 6}


def _error(end: TreeNetwork, start: TreeNetwork, operator: Operator, time: float, steps: int) -> float:
    """The error against the exponential of the whole operator, relative, in twice the length of a step."""
    terms = [[term.get(mode, torch.eye(n)).double() for mode, n in enumerate(start.shape)] for term in operator]
    total = torch.stack([functools.reduce(torch.kron, term) for term in terms]).sum(0)
    exact = torch.linalg.matrix_exp(time * total) @ start.to(torch.float64).to_dense().flatten()
    off = end.to(torch.float64).to_dense().flatten() - exact
    return float(off.norm() / exact.norm()) / (2 * time / steps)
