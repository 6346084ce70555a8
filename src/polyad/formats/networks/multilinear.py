"""The interface of formats that state one einsum, from which products, sums and slices follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor

from polyad.einsum import contract, groups, operations, symbol
from polyad.formats.format import Format
from polyad.formats.networks import arithmetic as _networks
from polyad.formats.networks import indexing as _indexing

_ROW = symbol(-1)  # stands for the rows of x
_FIRST_BATCH = -2  # symbols from here downwards stand for leading batch dimensions


class Multilinear(Format, abstract=True):
    """A format whose tensor is an einsum of its own tensors. A subclass gives ``network``.

    Every tensor carries the same leading batch dimensions, which the einsum leaves out. ``network`` names the
    tensors in the order of ``tensors()``. A letter of the output is a *mode*, any other a *bond*.
    """

    matrix: ClassVar[bool] = False
    """True for kinds that stand for matrices only, so that no mode can be taken away."""

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        """The einsum of one tensor of the batch, and its operands. Modes may fuse: ``ac,bd->(ab)(cd)``."""
        raise NotImplementedError

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        """A format of this kind made of these operands, in ``network``'s order; one mode fewer is one fewer."""
        return self.replace(dict(zip(self.tensors(), operands, strict=True)))

    @classmethod
    def fits(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) >= (2 if cls.matrix else 1)

    @property
    def shape(self) -> tuple[int, ...]:
        expression, operands = self.batch_network()
        sizes = _sizes(expression, operands)
        return tuple([math.prod([sizes[letter] for letter in mode]) for mode in groups(expression.split("->")[1])])

    @property
    def batch(self) -> int:
        """The number of leading batch dimensions."""
        return _lead(*self.network())

    def batch_network(self) -> tuple[str, tuple[Tensor, ...]]:
        """``network`` with a letter for each batch dimension."""
        expression, operands = self.network()
        prefix = "".join([symbol(_FIRST_BATCH - i) for i in range(_lead(expression, operands))])
        if not prefix:
            return expression, operands
        inputs, output = expression.split("->")
        return ",".join([prefix + term for term in inputs.split(",")]) + "->" + prefix + output, operands

    def to_dense(self) -> Tensor:
        expression, operands = self.batch_network()
        return contract(expression, *operands)

    def linear(self, x: Tensor) -> Tensor:
        expression, operands = self.batch_network()
        sizes = _sizes(expression, operands)
        applied, batch, columns = self._linear_einsum(expression)
        rows = x.reshape(*[sizes[letter] for letter in batch], -1, *[sizes[letter] for letter in columns])
        product = contract(applied, rows, *[t.to(x.dtype) for t in operands])
        return product.reshape(*x.shape[:-1], product.shape[-1])

    def flops(self, batch: int) -> int:
        expression, operands = self.batch_network()
        sizes = _sizes(expression, operands)
        applied, lead, columns = self._linear_einsum(expression)
        rows = (*[sizes[letter] for letter in lead], batch, *[sizes[letter] for letter in columns])
        return operations(applied, (rows, *[tuple(t.shape) for t in operands]))

    def _linear_einsum(self, expression: str) -> tuple[str, str, str]:
        """The einsum of ``x @ W.mT``, and the letters of the batch and of the columns, which are those of x."""
        batch, out, columns = self._matrix_modes(expression)
        return f"{batch}{_ROW}{columns},{expression.split('->')[0]}->{batch}{_ROW}({out})", batch, columns

    def _matrix_modes(self, expression: str) -> tuple[str, str, str]:
        modes = groups(expression.split("->")[1])
        count = self.batch
        batch, sides = modes[:count], modes[count:]
        if len(sides) != 2:
            raise ValueError(
                f"a {type(self).__name__} of shape {self.shape} has {len(sides)} modes; linear needs a matrix, of two"
            )
        return "".join(batch), sides[0], sides[1]

    # Arithmetic that keeps the structure ---------------------------------------------------------------------

    def __add__(self, other: Format) -> Format:
        """The sum, of the same kind where ``other`` is: bonds add up. Otherwise a ``Sum``."""
        if (
            isinstance(other, Multilinear)
            and _networks.are_alike(self, other)
            and _networks.is_connected(self.network()[0])
        ):
            return self.with_operands(_networks.direct_sum(self, other))
        return super().__add__(other)

    def __mul__(self, other: Any) -> Self:
        """Times a number, or entry by entry times a format of the same kind: bonds multiply."""
        if isinstance(other, Format):
            return self.with_operands(_networks.hadamard_operands(self, _networks.check_alike(self, other)))
        first, *others = self.network()[1]
        return self.with_operands((first * other, *others))

    def inner(self, other: Format) -> Tensor:
        """The inner product ``Σ X̄ Y`` over all modes, of shape (*batch); neither is densified. X̄ is the conjugate.

        ``other`` may be of another multilinear kind if its modes are split in the same way.
        """
        return _networks.inner(self, _networks.check_same_modes(self, other))

    def norm(self) -> Tensor:
        """The Frobenius norm, of shape (*batch); exact to half of the dtype's digits, as a root of ``inner``."""
        squared = self.inner(self)
        return (squared.real if squared.is_complex() else squared).clamp(min=0).sqrt()

    def __getitem__(self, index: Any) -> Self:
        """The sub-tensor of these integers and slices, in the same kind; batch dimensions are not indexed."""
        return self.without_modes(*_indexing.take_index(self, index))

    def entries(self, index: Tensor) -> Tensor:
        """Single entries: ``index`` of shape (*any, modes) gives numbers of shape (*any), batch dimensions first."""
        return _indexing.entries(self, index)

    def multiply(self, x: Tensor, mode: int) -> Self:
        """The mode product: a matrix (m, n) on a mode of n entries leaves m, a vector (n,) takes the mode away."""
        return self.without_modes(*_indexing.multiply_mode(self, x, mode))

    def without_modes(self, operands: tuple[Tensor, ...], gone: dict[str, int]) -> Self:
        """The format of these operands, without the letters ``gone``, each mapped to the operand that had it."""
        operands = _indexing.absorb_operands(self, operands, gone)
        if self.matrix and len(operands) != len(self.network()[1]):
            raise ValueError(
                f"a {type(self).__name__} stands for a matrix and cannot lose one of its two modes; use rows, or a "
                "slice of length one"
            )
        return self.with_operands(operands)


def _lead(expression: str, operands: tuple[Tensor, ...]) -> int:
    """The number of leading dimensions of the operands that the einsum leaves out."""
    return operands[0].ndim - len(expression.split(",", 1)[0].split("->")[0])


def _sizes(expression: str, operands: tuple[Tensor, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for letters, x in zip(expression.split("->")[0].split(","), operands, strict=True):
        sizes.update(zip(letters, x.shape, strict=True))
    return sizes
