"""Parts that the contracts share: the formats they are tried on, and the comparison of two tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from polyad.formats import Format

Subject = Format | type[Format]
Check = Callable[[Subject], None]

SHAPES = ((6, 4), (4, 12), (1, 6), (8, 1))
"""Matrices on which a kind is tried: tall, wide, one row, one column."""

SPECIAL = ((6, 6), (1, 1), (4, 4, 4), (6, 4, 3), (2, 5, 1))
"""Shapes for kinds that none of ``SHAPES`` fits: square matrices, and tensors of three modes, equal or not."""

MULTIWAY = frozenset(
    {"BlockTerm", "CP", "Network", "SymmetricCP", "TensorRing", "TensorTrain", "TreeNetwork", "Tubal", "Tucker"}
)
"""Kinds whose ``random`` takes every dimension as a mode of its own, and none as a batch."""

ROUNDINGS = 16
"""Units of the dtype's epsilon that a product of numbers may be off, relative to the product of their norms."""


def contract(check: Callable[[Format], None]) -> Check:
    """A check of one format, as a check of a format or of a kind: a kind is tried on all of its ``examples``."""

    return _try_every_format(check, matrix=False)


def matrices(check: Callable[[Format], None]) -> Check:
    """``contract`` for a property that only a matrix can have: examples of other than two modes are passed over."""
    return _try_every_format(check, matrix=True)


def _try_every_format(check: Callable[[Format], None], *, matrix: bool) -> Check:
    @functools.wraps(check)
    def check_subject(subject: Subject) -> None:
        for format in examples(subject) if isinstance(subject, type) else (subject,):
            if matrix and format.ndim != 2:
                continue
            try:
                check(format)
            except Exception as error:
                error.add_note(f"the format was {format!r} of {format.dtype}")
                raise

    return check_subject


def examples(kind: type[Format]) -> Iterator[Format]:
    """Random instances of a kind in every shape that fits it: float32 and float64, and bfloat16 for the first.

    Shapes are those of ``SHAPES``, or of ``SPECIAL`` for a kind that has none of these.

    >>> from polyad.formats import LowRank
    >>> sorted({str(example.dtype) for example in examples(LowRank)})
    ['torch.bfloat16', 'torch.float32', 'torch.float64']
    """
    shapes = [s for s in SHAPES if kind.fits(s)] or [s for s in SPECIAL if kind.fits(s)]
    for shape in shapes:
        for dtype in (torch.float32, torch.float64):
            yield kind.random(shape, generator=seeded_generator(), dtype=dtype)
    yield kind.random(shapes[0], generator=seeded_generator(), dtype=torch.float32).to(torch.bfloat16)


def seeded_generator(seed: int = 0) -> Generator:
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, like: Format | None = None, dtype: torch.dtype | None = None, seed: int = 1) -> Tensor:
    """Normal numbers, drawn in float32, in ``dtype`` or in that of ``like``."""
    chosen = dtype or (torch.float32 if like is None else like.dtype)
    return torch.randn(shape, generator=seeded_generator(seed)).to(chosen)


def assert_close(result: Tensor, expected: Tensor, scale: Tensor | float, dtype: torch.dtype, what: str) -> None:
    """Shapes equal, and the Frobenius error below ``ROUNDINGS`` of ``dtype``'s epsilon times ``scale``."""
    assert result.shape == expected.shape, f"{what}: the shape is {tuple(result.shape)}, not {tuple(expected.shape)}"
    error = float((result.double() - expected.double()).norm())
    limit = ROUNDINGS * torch.finfo(dtype).eps * float(scale)
    assert error <= limit, f"{what}: off by {error:.3g} in Frobenius norm, more than rounding allows ({limit:.3g})"


def relative_error(result: Tensor, expected: Tensor) -> float:
    """The Frobenius norm of the difference, as a part of what was expected."""
    return float((result.double() - expected.double()).norm() / expected.double().norm())


def exactness(format: Format) -> dict[str, bool]:
    """By dotted name, whether a tensor must keep its dtype: integers, and those that their format calls exact."""
    flags: dict[str, bool] = {}
    for field in format.field_names():
        value = getattr(format, field)
        parts = enumerate(value) if isinstance(value, tuple) else ((None, value),)
        for place, part in parts:
            name = field if place is None else f"{field}.{place}"
            if isinstance(part, Tensor):
                flags[name] = field in format.exact or not part.is_floating_point()
            elif isinstance(part, Format):
                flags.update({f"{name}.{inner}": exact for inner, exact in exactness(part).items()})
    return flags
