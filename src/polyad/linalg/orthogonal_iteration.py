"""Leading eigenvectors of many small matrices at once by orthogonal iteration."""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 12
_SLACK = 1e-9  # what a step may still add, relative to the trace outside the subspace
_FLOOR = 1e-6  # share of the largest eigenvalue below which one drowns in two products without a step between


def orthogonal_iteration(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor] | None:
    """The leading ``rank`` eigenvectors (*batch, n, r) and values (*batch, r) of positive semidefinite matrices.

    ``matrix`` is (*batch, n, n) in float64. A step multiplies a basis, random at first and the same each time, twice
    with the matrix and orthonormalises it, for all matrices together: some 4 n² r operations, and a few steps suffice
    wherever the values number r and r + 1 differ, where LAPACK solves one whole problem after the other. Matrices on
    which a step still adds more than 1e-9 of the trace that is left, or whose values fall below 1e-6 of the largest,
    are solved whole; None where these are more than half. What the subspace holds of the trace is then less than
    the most there is by at most about 1e-6 of what it leaves.

    >>> vectors, values = orthogonal_iteration(torch.diag(torch.tensor([9.0, 1.0, 0.0])).double(), 2)
    >>> values.round()
    tensor([9., 1.], dtype=torch.float64)
    """
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    unit = matrix / torch.where(trace > 0, trace, 1)[..., None, None]
    start = torch.randn(matrix.shape[-1], rank, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    basis = start.to(matrix.device)
    for _ in range(4):  # what rounding takes from weak directions here comes back in the steps
        basis = unit @ basis
    basis = torch.linalg.qr(basis)[0]
    captured = torch.zeros_like(trace)
    late = captured == 0
    for _ in range(_STEPS):
        image = unit @ basis
        before, captured = captured, (basis * image).sum((-2, -1))
        late &= captured - before > _SLACK * (1 - captured) + 1e-14
        if not bool(late.any()):
            break
        basis = torch.linalg.qr(unit @ image)[0]
    values, turn = torch.linalg.eigh(basis.mT @ (unit @ basis))
    late |= values[..., 0] <= _FLOOR * values[..., -1]
    if 2 * int(late.sum()) > late.numel():
        return None
    vectors, values = (basis @ turn).flip(-1), values.flip(-1) * trace.unsqueeze(-1)
    if bool(late.any()):
        whole, every = torch.linalg.eigh(matrix[late])
        values[late], vectors[late] = whole.flip(-1)[..., :rank], every.flip(-1)[..., :rank]
    return vectors, values
