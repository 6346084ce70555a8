"""Arithmetic that keeps the structure, held to the same arithmetic of dense tensors.

The checks concern formats that state one einsum; others pass, since they promise no more than a ``Sum``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from polyad.formats import BlockTensorTrain, Format, Sum
from polyad.formats.networks.arithmetic import is_connected, split_einsum
from polyad.formats.networks.multilinear import Multilinear
from polyad.testing._contract import Subject, assert_close, normal, seeded_generator

WAYS = ((5,), (4, 6), (4, 2, 6), (3, 4, 1, 2))
"""Tensors of one to four modes, on which a kind is tried where they fit it."""


def pairs(subject: Subject) -> Iterator[tuple[Multilinear, Multilinear]]:
    """Two random float64 tensors of each shape in ``WAYS`` that the kind can have; an instance with itself."""
    if isinstance(subject, Format):
        if isinstance(subject, Multilinear):
            yield subject.to(torch.float64), subject.to(torch.float64)
        return
    if not issubclass(subject, Multilinear):
        return
    for shape in filter(subject.fits, WAYS):
        first, second = (subject.random(shape, generator=seeded_generator(i), dtype=torch.float64) for i in (0, 1))
        yield first, second


def addition(subject: Subject) -> None:
    """Sum, difference, sign and multiples; the sum of two of a connected kind is of that kind."""
    for a, b in pairs(subject):
        x, y = a.to_dense(), b.to_dense()
        total = a + b
        assert isinstance(total, type(a) if is_connected(a.network()[0]) else Sum | BlockTensorTrain), (
            f"{a!r} + {b!r} is {total!r}"
        )
        _assert_same(total.to_dense(), x + y, f"{a!r} + {b!r}")
        _assert_same((a - 3 * b).to_dense(), x - 3 * y, f"{a!r} - 3 * {b!r}")
        _assert_same((-a).to_dense(), -x, f"-{a!r}")


def hadamard(subject: Subject) -> None:
    """The product entry by entry is of the same kind."""
    for a, b in pairs(subject):
        product = a * b
        assert type(product) is type(a), f"{a!r} * {b!r} is {product!r}"
        _assert_same(product.to_dense(), a.to_dense() * b.to_dense(), f"{a!r} * {b!r}")


def inner(subject: Subject) -> None:
    """Inner product and norm, to half of the digits where they cancel."""
    for a, b in pairs(subject):
        x, y, lead = a.to_dense(), b.to_dense(), a.batch
        _assert_same(a.inner(b), (x * y).flatten(lead).sum(-1), f"inner of {a!r}", x.norm() * y.norm())
        _assert_same(a.norm(), x.flatten(lead).norm(dim=-1), f"norm of {a!r}")


def indexing(subject: Subject) -> None:
    """Integers and slices give the same kind; taking every mode away is refused; entries are the entries."""
    for a, _ in pairs(subject):
        x, modes, lead = a.to_dense(), len(a.shape) - a.batch, a.batch
        if not _plain(a):
            continue
        for mode in range(modes):
            if a.matrix:
                _assert_refused(lambda a=a, mode=mode: a[(*[slice(None)] * mode, 0)], f"one row of {a!r}")
            for one in (-1, slice(None, None, 2), slice(1, None))[modes == 1 or a.matrix :]:
                index = (*[slice(None)] * mode, one)
                if isinstance(one, slice) and not len(range(*one.indices(a.shape[lead + mode]))):
                    continue
                _assert_same(a[index].to_dense(), x[(slice(None),) * lead + index], f"{a!r}[{index}]")
        where = torch.stack([torch.randint(0, n, (2, 3), generator=seeded_generator()) for n in a.shape[lead:]], -1)
        _assert_same(a.entries(where), x[(slice(None),) * lead + where.unbind(-1)], f"entries of {a!r}")


def contraction(subject: Subject) -> None:
    """A matrix on a mode changes its size, a vector takes it away; the kind stays."""
    for a, _ in pairs(subject):
        x, modes, lead = a.to_dense(), len(a.shape) - a.batch, a.batch
        if not _plain(a):
            continue
        for mode in range(modes):
            matrix = normal(3, a.shape[lead + mode], like=a)
            moved = x.movedim(lead + mode, -1)
            _assert_same(
                a.multiply(matrix, mode).to_dense(), (moved @ matrix.mT).movedim(-1, lead + mode), "multiply"
            )
            if a.matrix:
                _assert_refused(
                    lambda a=a, matrix=matrix, mode=mode: a.multiply(matrix[0], mode), f"a vector on {a!r}"
                )
            elif modes > 1:
                _assert_same(a.multiply(matrix[0], mode).to_dense(), moved @ matrix[0], "multiply by a vector")


def stacks(subject: Subject) -> None:
    """Operands with a leading batch dimension stand for a batch, in every operation."""
    for a, b in pairs(subject):
        if a.batch or [t.shape for t in a.network()[1]] != [t.shape for t in b.network()[1]]:
            continue
        both = a.with_operands([torch.stack(two) for two in zip(a.network()[1], b.network()[1], strict=True)])
        x = torch.stack((a.to_dense(), b.to_dense()))
        assert (both.batch, both.shape) == (1, tuple(x.shape)), f"stacking {a!r} twice gives {both!r}"
        _assert_same(both.to_dense(), x, f"a batch of {a!r}")
        _assert_same((both + both).to_dense(), 2 * x, f"the sum of batches of {a!r}")
        _assert_same(both.inner(both * both), (x**3).flatten(1).sum(-1), f"inner of batches of {a!r}", x.norm() ** 3)
        if x.ndim == 3:
            rows = normal(2, 5, x.shape[-1], like=a)
            _assert_same(both.linear(rows), rows @ x.mT, f"linear of a batch of {a!r}", rows.norm() * x.norm())


def _plain(a: Multilinear) -> bool:
    """True where every mode is one axis of one operand."""
    terms, modes = split_einsum(a.network()[0])
    return all(len(mode) == 1 and sum(mode in term for term in terms) == 1 for mode in modes)


def _assert_refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"{what} gave a result; a kind of matrices must refuse to lose a mode")


def _assert_same(result: Tensor, expected: Tensor, what: str, scale: Tensor | None = None) -> None:
    size = 1 + (expected.norm() if scale is None else scale)
    assert_close(result, expected, 16 * size, torch.float64, what)
