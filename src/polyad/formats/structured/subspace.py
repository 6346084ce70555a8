"""Leading singular subspaces of real or complex matrices, with gradients that see the subspace alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def singular_basis(x: Tensor) -> tuple[Tensor, Tensor]:
    """All left singular vectors (*batch, n, n) of x (*batch, n, m), real or complex, n ≤ m, and its n values.

    Largest first, without gradients. Single precision goes through the double Gram matrix, which resolves values
    down to 1e-8 of the largest; double precision through a singular value decomposition.

    >>> singular_basis(torch.tensor([[0.0, 2.0j], [1.0, 0.0]]))[1]
    tensor([2., 1.])
    """
    x = x.detach()
    if x.dtype in (torch.complex64, torch.float32):
        wide = x.to(torch.complex128 if x.is_complex() else torch.float64)
        squares, u = torch.linalg.eigh(wide @ wide.mH)
        s = squares.flip(-1).clamp(min=0).sqrt()
        return u.flip(-1).to(x.dtype), s.to(torch.float32)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    return u, s


def leading(x: Tensor, u: Tensor, s: Tensor, rank: int) -> Tensor:
    """The first ``rank`` columns of ``singular_basis(x)``, with gradients to x.

    Only what turns the subspace reaches x: how the basis lies in it is no function of x where singular values
    repeat, and ``U Uᴴ x`` does not depend on it. The gradient is finite everywhere, and that of ``U Uᴴ x`` is exact
    where the values number ``rank`` and ``rank`` + 1 differ; where they are equal it has none, and that pair is left
    out. Cost backwards: O(n² m).

    >>> x = torch.eye(2).requires_grad_()
    >>> u = leading(x, *singular_basis(x), rank=1)
    >>> (u @ u.mH @ x).sum().backward()
    >>> bool(x.grad.isfinite().all())
    True
    """
    return _Leading.apply(x, u, s, rank)  # pyright: ignore[reportReturnType]


class _Leading(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, u: Tensor, s: Tensor, rank: int) -> Tensor:
        ctx.save_for_backward(x, u, s)
        ctx.rank = rank
        return u[..., :rank].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        x, u, s = ctx.saved_tensors
        basis, rest = u[..., : ctx.rank], u[..., ctx.rank :]
        # first order: column i turns towards a dropped column j by u_jᴴ d(x xᴴ) u_i / (s_i² - s_j²)
        squares = s.double().square()
        gap = squares[..., None, : ctx.rank] - squares[..., ctx.rank :, None]
        least = 8 * torch.finfo(s.dtype).eps * squares[..., :1, None]
        share = torch.where(gap > least, gap, torch.inf).reciprocal().to(s.dtype)
        tilt = rest.mH @ grads[0] * share
        half = rest @ (tilt @ basis.mH)
        return (half + half.mH) @ x, None, None, None


def krylov_basis(x: Tensor, rank: int) -> Tensor | None:
    """Nearly the first ``rank`` columns of ``singular_basis(x)``, (*batch, n, rank), or None where not near enough.

    Three blocks of rank + 8 vectors of the Krylov space of ``x xᴴ``, from a random start that is the same each time:
    some 10 n m (rank + 8) multiplications. Near enough means that over the whole batch the third block lowers the
    squared error of ``U Uᴴ x`` by less than a thousandth of itself; the best there is is then nearer still.
    No gradients.

    >>> krylov_basis(torch.randn(100, 100, generator=torch.Generator().manual_seed(0)), 2) is None
    True
    """
    x = x.detach()
    top = x.abs().amax()
    x = x / top.where(top > 0, 1)
    wide = rank + 8
    start = torch.randn(x.shape[-1], wide, generator=torch.Generator().manual_seed(0), dtype=_real_dtype(x))
    block = torch.linalg.qr(x @ start.to(x))[0]
    blocks = [block]
    for _ in range(2):
        block = torch.linalg.qr(x @ (block.mH @ x).mH)[0]  # x.mH would be written out each time
        blocks.append(block)
    q = torch.linalg.qr(torch.cat(blocks, -1))[0]
    inner = (q.mH @ x).to(torch.complex128 if x.is_complex() else torch.float64)
    gram = inner @ inner.mH
    squares, turn = torch.linalg.eigh(gram)
    before = torch.linalg.eigvalsh(gram[..., : 2 * wide, : 2 * wide])[..., -rank:].sum()
    captured, total = squares[..., -rank:].sum(), torch.linalg.vector_norm(x, dtype=inner.dtype).real.square()
    least = torch.finfo(_real_dtype(x)).eps * total
    if bool(captured - before > 1e-3 * (total - captured).clamp(min=least)):
        return None
    return q @ turn[..., -rank:].flip(-1).to(x.dtype)


def _real_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the singular values of x."""
    return x.real.dtype if x.is_complex() else x.dtype
