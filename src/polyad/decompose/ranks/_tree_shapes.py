"""Bonds of tree networks from spectra and a budget: a knapsack, solved from the leaves to the root."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad.formats.networks.binary_tree import Tree, children, leaves
from polyad.linalg import left_singular

_FINE, _LEAST = 0.01, 1e-12
"""Losses that differ by less than the first share count as equal; so do all below the second number."""

Fronts = dict[int, tuple[Tensor, Tensor]]
"""By the bond's size: numbers stored in a subtree, and squares lost there, in step."""
Choices = dict[int, list[tuple[int, int, int, int]]]


def tree_shapes(x: Tensor, budget: int, tree: Tree) -> tuple[int, ...]:
    """The bonds of every node but the root, in preorder; x has norm 1 or 0.

    A node keeps, for every size of its bond, the fewest numbers that its subtree stores at each loss. Losses within
    a hundredth of each other count as one at every node, so the result loses at most that a level more than the best.
    """
    below = children(tree)
    tails = _bond_losses(x, tree)
    fronts: dict[int, Fronts] = {}
    chosen: dict[int, Choices] = {}
    for node in reversed(range(1, len(below))):
        mode, pair = below[node]
        if pair is None:
            sizes = range(1, len(tails[node]))
            fronts[node] = {r: (torch.tensor([x.shape[mode] * r]), tails[node][r : r + 1].clone()) for r in sizes}
        else:
            fronts[node], chosen[node] = _join_fronts(fronts[pair[0]], fronts[pair[1]], tails[node], budget)
    first, second = below[0][1] or (1, 1)
    best: tuple[float, float, int, int, int] | None = None
    for r in set(fronts[first]) & set(fronts[second]):
        stored = fronts[first][r][0][:, None] + fronts[second][r][0] + r * r
        lost = (fronts[first][r][1][:, None] + fronts[second][r][1]).masked_fill(stored > budget, math.inf)
        least = float(lost.min())
        place = int(torch.where(lost <= least * (1 + 1e-9), stored, stored.max() + 1).argmin())
        candidate = (least, float(stored.flatten()[place]), r, *divmod(place, lost.shape[1]))
        if least < math.inf and (best is None or candidate < best):
            best = candidate
    if best is None:
        raise ValueError(f"budget={budget} does not hold bonds of one in tree={tree}")
    bonds = [0] * len(below)
    _read(below, chosen, bonds, first, best[2], best[3])
    _read(below, chosen, bonds, second, best[2], best[4])
    return tuple(bonds[1:])


def _bond_losses(x: Tensor, tree: Tree) -> dict[int, Tensor]:
    """By node, the squares lost at each size of its bond; the root's two children share one, counted at the first."""
    parts: list[Tree] = []

    def visit(part: Tree) -> None:
        parts.append(part)
        if not isinstance(part, int):
            visit(part[0])
            visit(part[1])

    visit(tree)
    losses: dict[int, Tensor] = {}
    _, pair = children(tree)[0]
    for node, part in enumerate(parts[1:], 1):
        inside = leaves(part)
        rest = [mode for mode in range(x.ndim) if mode not in inside]
        matrix = x.permute(*inside, *rest).reshape(math.prod([x.shape[m] for m in inside]), -1)
        matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.mT
        squares = left_singular(matrix, len(matrix), exact=True)[1].square()
        left = torch.cat((squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)))
        useful = int((left > _LEAST * left[0]).sum()) + 1  # one that loses nothing is enough
        losses[node] = left[:useful].clone()
        if pair is not None and node == pair[1]:
            losses[node] = torch.zeros_like(losses[node])
    return losses


def _join_fronts(left: Fronts, right: Fronts, tail: Tensor, budget: int) -> tuple[Fronts, Choices]:
    """Join the fronts of two children to their parent's; and by which of their points each point was reached."""
    a, b = _stack_fronts(left), _stack_fronts(right)
    stored = a[1][:, None] + b[1]
    core, lost = a[0][:, None] * b[0], a[2][:, None] + b[2]
    fits = (stored + core <= budget).flatten().nonzero().flatten()
    stored, core, lost = (t.flatten()[fits] for t in (stored, core, lost))
    bucket = (lost.clamp(min=_LEAST).log() / math.log1p(_FINE)).round().long()
    _, bucket = bucket.unique(return_inverse=True)
    fronts: Fronts = {}
    choices: Choices = {}
    for r in range(1, len(tail)):
        total = stored + core * r
        order = total.argsort(stable=True)
        order = order[(total[order] <= budget) & (core[order] >= r)]
        if not len(order):
            continue
        firsts = torch.full((int(bucket.max()) + 1,), len(order)).scatter_reduce(
            0, bucket[order], torch.arange(len(order)), "amin"
        )
        chosen = order[firsts[firsts < len(order)].sort().values]
        falling = lost[chosen].cummin(0).values
        better = torch.cat((falling.new_ones(1, dtype=torch.bool), falling[1:] < falling[:-1]))
        chosen = chosen[better]
        fronts[r] = (total[chosen], lost[chosen] + tail[r])
        i, j = fits[chosen] // len(b[0]), fits[chosen] % len(b[0])
        rows = zip(a[0][i].tolist(), a[3][i].tolist(), b[0][j].tolist(), b[3][j].tolist(), strict=True)
        choices[r] = list(rows)
    return fronts, choices


def _stack_fronts(fronts: Fronts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stack all points of a node: their bond, numbers, losses, and places in the bond's front."""
    sizes = [torch.full_like(stored, r) for r, (stored, _) in fronts.items()]
    places = [torch.arange(len(stored)) for stored, _ in fronts.values()]
    stored, lost = zip(*fronts.values(), strict=True)
    return torch.cat(sizes), torch.cat(stored), torch.cat(lost), torch.cat(places)


def _read(
    below: list[tuple[int, tuple[int, int] | None]],
    chosen: dict[int, Choices],
    bonds: list[int],
    node: int,
    r: int,
    place: int,
) -> None:
    """Write down the bonds of a point, from a node to its leaves."""
    bonds[node] = r
    _, pair = below[node]
    if pair is not None:
        a, i, b, j = chosen[node][r][place]
        _read(below, chosen, bonds, pair[0], a, i)
        _read(below, chosen, bonds, pair[1], b, j)
