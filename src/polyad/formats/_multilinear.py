"""Formats that state one einsum, from which the rest follows."""

from __future__ import annotations

import math

from torch import Tensor

from polyad.einsum.expression import contract, groups, operations
from polyad.formats._format import Format

_ROW = "Z"  # stands for the rows of x; formats use other letters


class _Multilinear(Format):
    """A format whose tensor is an einsum of its own tensors. A subclass gives ``network``."""

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        """The einsum and its operands. Modes may fuse: ``ac,bd->(ab)(cd)``."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        expression, operands = self.network()
        sizes = self._sizes(expression, operands)
        return tuple(math.prod([sizes[letter] for letter in mode]) for mode in groups(expression.split("->")[1]))

    def to_dense(self) -> Tensor:
        expression, operands = self.network()
        return contract(expression, *operands)

    def linear(self, x: Tensor) -> Tensor:
        expression, operands = self.network()
        sizes = self._sizes(expression, operands)
        _, columns = self._matrix_modes(expression)
        rows = x.reshape(-1, *(sizes[letter] for letter in columns))
        product = contract(self._applied(expression), rows, *(t.to(x.dtype) for t in operands))
        return product.reshape(*x.shape[:-1], product.shape[-1])

    def flops(self, batch: int) -> int:
        expression, operands = self.network()
        sizes = self._sizes(expression, operands)
        _, columns = self._matrix_modes(expression)
        rows = (batch, *(sizes[letter] for letter in columns))
        return operations(self._applied(expression), (rows, *(tuple(t.shape) for t in operands)))

    def _applied(self, expression: str) -> str:
        """The einsum of ``x @ W.mT``: x brings the columns' letters, the rows' letters stay."""
        inputs, _ = expression.split("->")
        out, columns = self._matrix_modes(expression)
        return f"{_ROW}{columns},{inputs}->{_ROW}({out})"

    def _matrix_modes(self, expression: str) -> tuple[str, str]:
        modes = groups(expression.split("->")[1])
        if len(modes) != 2:
            raise ValueError(
                f"{type(self).__name__} of shape {self.shape} has {len(modes)} modes; only a matrix can be applied"
            )
        return modes[0], modes[1]

    @staticmethod
    def _sizes(expression: str, operands: tuple[Tensor, ...]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for letters, x in zip(expression.split("->")[0].split(","), operands, strict=True):
            sizes.update(zip(letters, x.shape, strict=True))
        return sizes
