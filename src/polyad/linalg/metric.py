"""Second moments of data: their square roots, principal directions and tails."""

from __future__ import annotations

import torch
from torch import Tensor

PART = 2**24
"""Numbers of a moment that are cast at once."""


def roots(second: Tensor, *, floor: float = 1e-10) -> tuple[Tensor, Tensor]:
    """Symmetric square root of a second moment and its pseudo-inverse; both (n, n), in the input's dtype.

    Eigenvalues below ``floor`` times the largest count as zero: directions that the data never takes. Computed in
    float64, since the condition number of the activations of language models passes 1e7. Cost: O(n³).

    >>> root, inverse = roots(torch.diag(torch.tensor([4.0, 9.0])))
    >>> root.diagonal().tolist(), round(float(inverse[0, 0]), 3)
    ([2.0, 3.0], 0.5)
    """
    values, vectors = torch.linalg.eigh(second.double())
    present = values > floor * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
    root = values.clamp_min(0).sqrt() * present
    inverse = torch.where(present, root, 1).reciprocal() * present
    return ((vectors * root) @ vectors.mT).to(second.dtype), ((vectors * inverse) @ vectors.mT).to(second.dtype)


def moment_product(x: Tensor, second: Tensor) -> Tensor:
    """x @ second in x's dtype, x of shape (rows, n), without a copy of the (n, n) moment in that dtype.

    >>> moment_product(torch.ones(1, 2, dtype=torch.float64), torch.eye(2))
    tensor([[1., 1.]], dtype=torch.float64)
    """
    step = max(1, PART // second.shape[1])
    return torch.cat([x @ part.to(x.dtype).mT for part in second.split(step)], 1)


def principal(second: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of a second moment, largest first and not below zero, and their eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(second.double())
    return values.flip(0).clamp_min(0), vectors.flip(1).to(second.dtype)


def tails(squares: Tensor) -> Tensor:
    """The sum of all but the first 0, 1, …, n of these squares; shape (n + 1,), float64.

    >>> tails(torch.tensor([4.0, 2.0, 1.0])).tolist()
    [7.0, 3.0, 1.0, 0.0]
    """
    rest = squares.double().flip(0).cumsum(0).flip(0)
    return torch.cat((rest, rest.new_zeros(1)))
