"""Starting points for sums of outer products: the tensor is compressed first, and many starts compete there."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from polyad.decompose.cp._newton import is_small, levenberg
from polyad.decompose.cp._sweeps import refine_factors
from polyad.linalg import left_singular

ROUND = 10  # steps of every start before the worse half is dropped
MANY = 32  # tensors from which on a second start for all costs more than a second pass over some
SPARE = 6  # columns of a sketch beyond the rank


def compress(x: Tensor, rank: int, generator: Generator) -> tuple[Tensor, list[Tensor | None]]:
    """A core of at most ``rank`` entries a mode, float64, and the orthonormal bases (batch, I_n, k_n) or None.

    x is (batch, I₁, …, I_N). The first or the last mode goes first, since x can be read along it as it lies, then
    the others, the most shrunk first. Long modes are sketched, with one step of subspace iteration.
    """
    shape, n = x.shape[1:], x.ndim - 1
    bases: list[Tensor | None] = [None] * n
    first = 0 if shape[0] >= shape[-1] else n - 1
    core = x
    for mode in sorted(range(n), key=lambda mode: (mode != first or shape[mode] <= rank, -shape[mode])):
        if shape[mode] <= rank:
            continue
        rows = core.reshape(len(x), shape[0], -1) if mode == 0 else core.movedim(mode + 1, 1).flatten(2)
        if mode == n - 1 and core is x:
            rows = x.reshape(len(x), -1, shape[-1]).mT
        basis = _range(rows, rank, generator)
        bases[mode] = basis
        shrunk = (basis.to(x.dtype).mT @ rows).unflatten(2, [m for i, m in enumerate(core.shape[1:]) if i != mode])
        core = shrunk.movedim(1, mode + 1)
    return core.double(), bases


def _range(rows: Tensor, rank: int, generator: Generator) -> Tensor:
    """A basis (batch, n, rank), orthonormal, of the leading left singular directions of rows (batch, n, m)."""
    n, m = rows.shape[1:]
    if n <= 4 * (rank + SPARE):
        return left_singular(rows, rank)[0].double()
    draw = torch.randn(m, rank + SPARE, generator=generator, dtype=torch.float32, device=generator.device)
    basis = torch.linalg.qr((rows @ draw.to(rows)).double())[0]
    small = basis.to(rows.dtype).mT @ rows
    basis, small = torch.linalg.qr((rows @ small.mT).double())
    # rows rowsᵀ = basis · small · basisᵀ on the space that was sketched, up to what it leaves out
    left = torch.linalg.svd(small)[0]
    return basis @ left[..., :rank]


def race(
    core: Tensor,
    rank: int,
    restarts: int,
    *,
    ridge: float,
    enough: Tensor,
    stop: float,
    generator: Generator,
    eps: float,
) -> list[Tensor]:
    """The best of several starts, refined on the core: factors (batch, 1, rank, k_n). The core has unit norm
    and entries good to ``eps``.

    Starts from generalised eigenvectors come first, where the core allows them. Entries of the batch that these do
    not bring below ``enough`` (batch,) try ``restarts`` random ones too; the worse half is dropped again and again,
    and the rounds get longer.
    """
    best, left = None, torch.ones(len(core), dtype=torch.bool, device=core.device)
    if sum(k == rank for k in core.shape[1:]) > 1:
        best, left = _best_eigenvector_start(core, rank, ridge, enough, stop, generator, 1e3 * eps)
    if best is not None and not bool(left.any()):
        return best
    part, allowed = core[left], enough[left]
    field = [_normal(len(part), restarts, rank, k, like=core, generator=generator) for k in core.shape[1:]]
    if best is not None:
        field = [torch.cat((one[left], many), 1) for one, many in zip(best, field, strict=True)]
    steps = ROUND
    while field[0].shape[1] > 1:
        field, errors = _improve(part, field, steps, stop, ridge, allowed)
        field, steps = _pick(field, errors, field[0].shape[1] // 2), 2 * steps
    field = _improve(part, field, 4 * steps, stop, ridge, allowed)[0]
    if best is None:
        return field
    for one, many in zip(best, field, strict=True):
        one[left] = many
    return best


def _best_eigenvector_start(
    core: Tensor, rank: int, ridge: float, enough: Tensor, stop: float, generator: Generator, eps: float
) -> tuple[list[Tensor], Tensor]:
    """The best of two starts from eigenvectors, refined; and a mask of tensors for which neither is good enough.

    Few tensors try both at once; of many, those the second for which the first was not good enough.
    """
    both = len(core) < MANY
    factors, errors = _improve(
        core, eigenvector_starts(core, rank, 1 + both, generator, eps), ROUND, stop, ridge, enough
    )
    best, errors = _pick(factors, errors, 1), errors.min(1).values
    left = errors > 10 * enough
    if not both and bool(left.any()):
        part = core[left]
        again, new_errors = _improve(
            part, eigenvector_starts(part, rank, 1, generator, eps), ROUND, stop, ridge, enough[left]
        )
        field = [torch.cat((one[left], many), 1) for one, many in zip(best, again, strict=True)]
        picked = _pick(field, torch.cat((errors[left].unsqueeze(1), new_errors), 1), 1)
        for one, many in zip(best, picked, strict=True):
            one[left] = many
        errors[left] = torch.minimum(errors[left], new_errors[:, 0])
    return best, errors > 10 * enough


def _improve(
    core: Tensor, factors: list[Tensor], steps: int, stop: float, ridge: float, enough: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Gauss-Newton steps where the core is small enough for them, else sweeps."""
    if is_small(core, factors[0].shape[1], factors[0].shape[2]):
        return levenberg(core, factors, max_iter=steps, stop=stop, ridge=ridge, enough=enough)
    return refine_factors(
        core, factors, core.new_ones(len(core)), stop=stop, max_iter=steps, ridge=ridge, enough=enough
    )


def _normal(*shape: int, like: Tensor, generator: Generator) -> Tensor:
    entries = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return (entries / shape[-1] ** 0.5).to(like.device)


def _pick(factors: list[Tensor], errors: Tensor, keep: int) -> list[Tensor]:
    """The ``keep`` starts of the least error; within two per cent of it, those whose terms cancel least."""
    weights = torch.stack([factor.square().sum(-1) for factor in factors]).prod(0).sum(-1)  # Σ of squared terms
    order = errors.masked_fill(errors <= 1.02 * errors.min(1, keepdim=True).values, 0.0)
    order = torch.where(order == 0, -1 / (1 + weights), order)
    chosen = order.argsort(1)[:, :keep]
    return [factor.gather(1, chosen[..., None, None].expand(-1, -1, *factor.shape[2:])) for factor in factors]


def eigenvector_starts(
    core: Tensor, rank: int, starts: int, generator: Generator, eps: float = 1e-12
) -> list[Tensor]:
    """Starts from eigenvectors, exact where the tensor is of this rank: factors (batch, starts, rank, k_n).

    Two modes of the core have ``rank`` entries. Random combinations of its slices along these are A D Bᵀ, so the
    factor A is made of eigenvectors of a quotient of two of them. Without A every row that is left is one outer
    product, and its vectors are leading singular vectors. Complex pairs become their real and imaginary parts.
    """
    batch, sizes = len(core), core.shape[1:]
    a, b = [mode for mode, k in enumerate(sizes) if k == rank][:2]
    rest = [mode for mode in range(len(sizes)) if mode not in (a, b)]
    slices = core.permute(0, a + 1, b + 1, *[mode + 1 for mode in rest]).flatten(3)  # (batch, rank, rank, rest)
    mix = _normal(starts, 2, slices.shape[-1], like=core, generator=generator)
    pencil = torch.einsum("bijk,stk->bstij", slices, mix.to(slices.dtype))
    quotient = pencil[:, :, 0] @ torch.linalg.pinv(pencil[:, :, 1], rtol=eps)
    values, vectors = torch.linalg.eig(quotient)
    columns = vectors
    if not core.is_complex():
        columns = torch.where(values.imag.unsqueeze(-2) < 0, vectors.imag, vectors.real)
    columns = columns / columns.norm(dim=-2, keepdim=True).clamp(min=1e-30)
    terms = torch.linalg.pinv(columns, rtol=eps) @ slices.flatten(2).unsqueeze(1)  # (batch, starts, rank, b rest)
    rows: dict[int, Tensor] = {a: columns.mT}
    for mode in (b, *rest[:-1]):
        matrix = terms.unflatten(-1, (sizes[mode], -1))
        vector = left_singular(matrix, 1)[0]
        rows[mode] = vector.squeeze(-1)
        terms = (vector.mH @ matrix).squeeze(-2)
    rows[rest[-1]] = terms
    return [rows[mode].reshape(batch, starts, rank, -1).contiguous() for mode in range(len(sizes))]
