"""Gradients of a format's own tensors from the input and the output's gradient, by its structure.

A dense gradient of the weight costs the layer's product once more, which for an update of few numbers is mostly
wasted; and what autograd keeps of a structured product is several times its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats import Circulant, Format, KhatriRao, Kronecker, LowRank, Toeplitz

Gradients = tuple[Tensor | None, ...]


def with_tensors(like: Format, tensors: Sequence[Tensor]) -> Format:
    """The format with these tensors, in the order of ``tensors()``."""
    return like.replace(dict(zip(like.tensors(), tensors, strict=True)))


def low_rank_gradient(update: LowRank, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Gradients:
    """The gradients of left and right; the thin matrix is in front, as in ``low_rank_product``."""
    left = ((update.right @ x.mT) @ g).mT if needs[0] else None
    return left, (update.left.mT @ g.mT) @ x if needs[1] else None


def kronecker_gradient(update: Kronecker, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Gradients:
    """The gradients of first (K, a, c) and second (K, b, d), from the side on which the products are smaller."""
    (_, a, c), (_, b, d) = update.first.shape, update.second.shape
    if _kronecker_side(a, b, c, d) > _kronecker_side(c, d, a, b):
        transposed = kronecker_gradient(update.transpose(), g, x, needs)
        return tuple([t if t is None else t.mT for t in transposed])
    x, g = x.view(-1, c, d), g.view(-1, b)  # (rows, c, d), (rows a, b)
    first: list[Tensor] = []
    second: list[Tensor] = []
    for one, other in zip(update.first, update.second, strict=True):
        if needs[0]:
            first.append(torch.bmm((g @ other).view(-1, a, d), x.mT).sum(0))
        if needs[1]:
            second.append(g.mT @ torch.bmm(one.expand(len(x), a, c), x).view(-1, d))
    return torch.stack(first) if first else None, torch.stack(second) if second else None


def _kronecker_side(a: int, b: int, c: int, d: int) -> int:
    """Operations a row for one term with the products (a, d) wide."""
    return 4 * a * d * (b + c)


def circulant_gradient(update: Circulant, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Gradients:
    """The gradient of the columns: the correlation of g with x by blocks, summed over rows frequency by frequency.

    The transforms are products with a real matrix (2 (b/2 + 1), b), which for blocks of some dozens take less time
    than fast ones, and leave the frequencies in front.
    """
    p, q, b = update.columns.shape
    if not needs[0]:
        return (None,)
    waves = _waves(b, x)  # (frequencies, 2, b): cosines and sines
    spectrum = (waves.flatten(0, 1) @ x.reshape(-1, b).mT).view(len(waves), -1, q)  # re over im, (f, 2 rows, q)
    thrice = torch.cat((waves, -waves[:, :1]), 1).flatten(0, 1)
    other = (thrice @ g.reshape(-1, b).mT).view(len(waves), -1, p)  # re, im, -re: (f, 3 rows, p)
    rows = len(x)
    real, imaginary = other[:, : 2 * rows].mT @ spectrum, other[:, rows:].mT @ spectrum  # (f, p, q)
    return (torch.fft.irfft(torch.complex(real, imaginary).movedim(0, -1), n=b),)


def toeplitz_gradient(update: Toeplitz, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Gradients:  # noqa: ARG001
    """The gradient of the diagonals: the sums along those of the dense one, read in rows of one number fewer."""
    if not needs[0]:
        return (None,)
    dense = (g.mT @ x).flip(-1)
    out, n = dense.shape
    return (F.pad(dense, (0, out)).flatten()[: out * (n + out - 1)].view(out, -1).sum(0),)


def khatri_rao_gradient(update: KhatriRao, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Gradients:
    """The gradients of first and second: the dense one, all of which counts, summed over one side of each column."""
    dense = g.mT @ x
    if update.by_rows:
        dense = dense.mT
    dense = dense.reshape(update.first.shape[-2], -1, dense.shape[-1])  # (a, b, columns)
    first = torch.stack([(dense * t).sum(1) for t in update.second]) if needs[0] else None
    return first, torch.stack([(dense * t.unsqueeze(1)).sum(0) for t in update.first]) if needs[1] else None


def _waves(b: int, like: Tensor) -> Tensor:
    """The real transform of length b as a matrix: cos and -sin of 2π f k / b, (b/2 + 1, 2, b)."""
    k = torch.arange(b, device=like.device)
    angles = (k[: b // 2 + 1].unsqueeze(1) * k % b).to(torch.float64) * (2 * math.pi / b)
    return torch.stack((angles.cos(), -angles.sin()), 1).to(like.dtype)


def _dense_gradient_operations(update: Format) -> int:
    """Operations of a row of the dense gradient."""
    return 2 * update.shape[0] * update.shape[1]


def _circulant_operations(update: Circulant) -> int:
    p, q, b = update.columns.shape
    return (b // 2 + 1) * (4 * q * b + 6 * p * b + 8 * p * q)


def _kronecker_operations(update: Kronecker) -> int:
    (terms, a, c), (_, b, d) = update.first.shape, update.second.shape
    return terms * min(_kronecker_side(a, b, c, d), _kronecker_side(c, d, a, b))


Gradient = Callable[[Any, Tensor, Tensor, Sequence[bool]], Gradients]
GRADIENTS: dict[type[Format], tuple[Gradient, Callable[[Any], int]]] = {
    LowRank: (low_rank_gradient, lambda update: update.flops(2 if update.right.requires_grad else 1)),
    Kronecker: (kronecker_gradient, _kronecker_operations),
    Circulant: (circulant_gradient, _circulant_operations),
    KhatriRao: (khatri_rao_gradient, _dense_gradient_operations),
    Toeplitz: (toeplitz_gradient, _dense_gradient_operations),
}
"""The gradients of a kind's tensors, a function of x (rows, in) and g (rows, out), and its operations a row."""
