"""Sums over all nodes of a tree, weighted by a function of their distance, in O(n log n)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.algorithms._separators import Entries, neighbours, separate, spanning_forest, walk

Kernel = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From distances (k,) and the reach (k,) of their groups to u and v, (k, r) each, with f(x + y) = u(x) · v(y)."""


def exponential(rate: float | Tensor) -> Kernel:
    """``f(d) = exp(rate d)``, exact with one term; gradients flow to a rate given as a tensor."""

    def terms(distance: Tensor, _reach: Tensor) -> tuple[Tensor, Tensor]:
        factor = (rate * distance).exp().unsqueeze(-1)
        return factor, factor

    return terms


def smooth(function: Callable[[Tensor], Tensor], nodes: int = 16, *, scale: float | None = None) -> Kernel:
    """A function by interpolation at Chebyshev nodes: exact for polynomials of degree below ``nodes``.

    Every group is interpolated on its own span of distances. With ``scale`` the nodes are spread in
    log(1 + d / scale): for functions such as 1 / (1 + d), which change within about ``scale`` but reach far. They
    gain digits with every node; a function with a kink does not.
    """
    place = (torch.arange(nodes, dtype=torch.float64) + 0.5) * math.pi / nodes
    basis = torch.cos(place.unsqueeze(1) * torch.arange(nodes, dtype=torch.float64)) * 2 / nodes  # [node, degree]
    basis[:, 0] /= 2

    def terms(distance: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        span = torch.where(reach > 0, reach, 1)
        near = distance if scale is None else (distance / scale).log1p()
        far = (span if scale is None else (span / scale).log1p()).unsqueeze(-1)
        at = far * (1 + place.cos().to(distance)) / 2
        at = at if scale is None else scale * at.expm1()
        angle = torch.arccos((2 * near.unsqueeze(-1) / far - 1).clamp(-1, 1))
        chebyshev = torch.cos(angle * torch.arange(nodes).to(distance))  # (k, degree)
        return function(distance.unsqueeze(-1) + at), chebyshev @ basis.to(distance).mT

    return terms


@method(
    "solve",
    name="tree_field",
    example={
        "arguments": lambda g: _draw_tree(g),
        "call": lambda edges, lengths, x, kernel: TreeField.of(edges, lengths).integrate(x, kernel),
        "off": lambda sums, edges, lengths, x, kernel: _brute_error(sums, TreeField.of(edges, lengths), x),  # noqa: ARG005
        "scale": ("x",),
    },
    papers=(
        Paper(
            "Choromanski, Sehanobish, Basu Roy Chowdhury, Lin, Dubey, Sarlos, Chaturvedi",
            2024,
            "Fast Tree-Field Integrators: From Low Displacement Rank to Topological Transformers",
            "arXiv:2406.15881",
            handle="ftfi",
            adds="integration over a tree of separators, cross terms being matrices f(x_i + y_j)",
        ),
    ),
)
@dataclass(frozen=True, eq=False)
class TreeField:
    """The matrix ``M[i, j] = f(distance of i and j)`` of a weighted tree of n nodes, for any f, never formed.

    ``edges`` (n - 1, 2) are integers, ``lengths`` (n - 1,) not below zero. ``TreeField.of`` takes the tree apart
    once: at a node that leaves no piece larger than half, then at one of each piece, O(n log n) in Python. Through
    such a node the distance is a sum x_i + y_j, and where f(x + y) is a sum of r products, all pairs of a piece are
    summed in O(r) operations a node; pairs that stay in one branch are taken away again. ``integrate`` takes about
    4 r n log₂ n multiplications a column at most, without a loop over nodes.

    Departs from the paper in the cross terms: where it multiplies by Cauchy- or Vandermonde-like matrices, smooth
    functions are interpolated here (``smooth``), and exponentials and polynomials are exact with few terms.

    >>> path = TreeField.of(torch.tensor([[0, 1], [1, 2], [2, 3]]))
    >>> path.integrate(torch.ones(4, 1), smooth(lambda d: d, nodes=2)).squeeze(1).round()
    tensor([6., 4., 4., 6.])
    """

    edges: Tensor
    lengths: Tensor
    levels: tuple[Entries, ...]

    @classmethod
    def of(cls, edges: Tensor, lengths: Tensor | None = None) -> TreeField:
        """The field of a tree; lengths of one where none are given."""
        if edges.ndim != 2 or edges.shape[1] != 2 or edges.is_floating_point():
            raise ValueError(f"edges of shape {tuple(edges.shape)} and {edges.dtype} must be integers (n - 1, 2)")
        lengths = torch.ones(len(edges), dtype=torch.float64) if lengths is None else lengths
        _check.finite("lengths", _check.floating("lengths", lengths))
        if lengths.shape != edges.shape[:1] or bool((lengths < 0).any()):
            raise ValueError(f"lengths of shape {tuple(lengths.shape)} must be {len(edges)} numbers, none below zero")
        return cls(edges, lengths, separate(edges, lengths))

    @classmethod
    def spanning(cls, edges: Tensor, lengths: Tensor) -> TreeField:
        """The field of a connected graph's minimum spanning tree, whose distances are at least the graph's."""
        chosen = spanning_forest(edges, lengths)
        return cls.of(edges[chosen], lengths[chosen])

    @property
    def size(self) -> int:
        """The number of nodes."""
        return len(self.edges) + 1

    def integrate(self, x: Tensor, kernel: Kernel) -> Tensor:
        """``M x`` for x of shape (n, …), in x's dtype; half precision is computed in float32. Gradients flow to x."""
        if x.ndim == 0 or len(x) != self.size:
            raise ValueError(f"x of shape {tuple(x.shape)} must have one row for each of the {self.size} nodes")
        _check.finite("x", _check.floating("x", x))
        work = (x if x.dtype in (torch.float32, torch.float64) else x.float()).reshape(len(x), -1)
        total = torch.zeros_like(work)
        for level in self.levels:
            left, right = kernel(level.distance.to(work.dtype), level.reach.to(work.dtype))
            _check.finite("what kernel gives", left)
            _check.finite("what kernel gives", right)
            products = right.unsqueeze(-1) * work[level.node].unsqueeze(-2)  # (entries, r, columns)
            sums = products.new_zeros(level.groups, *products.shape[1:]).index_add(0, level.group, products)
            parts = (left.unsqueeze(-1) * sums[level.group]).sum(-2) * level.sign.to(work.dtype).unsqueeze(-1)
            total = total.index_add(0, level.node, parts)
        return total.reshape(x.shape).to(x.dtype)

    def multiplications(self, terms: int) -> int:
        """Multiplications a column of x for a kernel of so many terms; the whole matrix takes n²."""
        return sum(len(level.node) for level in self.levels) * 2 * terms

    def distances(self) -> Tensor:
        """All distances, (n, n), without the separators: explicit, for checks and for brute force. O(n²)."""
        order, parent, away = walk(0, neighbours(self.edges, self.lengths), [False] * self.size)
        table = torch.zeros(self.size, self.size, dtype=self.lengths.dtype)
        place = {node: i for i, node in enumerate(order)}
        for i, node in enumerate(order[1:], start=1):
            above = parent[node]
            row = table[place[above], :i] + (away[node] - away[above])
            table[i, :i], table[:i, i] = row, row
        back = torch.tensor(order).argsort()
        return table[back][:, back]


def _draw_tree(generator: Generator) -> dict[str, Any]:
    """A tree of thirty nodes, each hung on one before it, two columns and f(d) = exp(-0.7 d)."""
    above = [[int(torch.randint(0, i, (), generator=generator)), i] for i in range(1, 30)]
    lengths = torch.rand(29, generator=generator, dtype=torch.float64)
    x = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    return {"edges": torch.tensor(above), "lengths": lengths, "x": x, "kernel": exponential(-0.7)}


def _brute_error(sums: Tensor, field: TreeField, x: Tensor) -> float:
    """The error of sums for f(d) = exp(-0.7 d) against the whole matrix, in thousands of roundings."""
    scale = x.double().abs().max()
    exact = (-0.7 * field.distances().double()).exp() @ (x.double() / scale)
    return float((sums.double() / scale - exact).norm() / exact.norm()) / (1e3 * torch.finfo(x.dtype).eps)
