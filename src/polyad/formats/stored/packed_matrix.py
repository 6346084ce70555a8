"""The interface of matrices whose codes lie as an operator of torch takes them, for as long as a program runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats.format import Format
from polyad.formats.stored.packing import pack


@dataclass(frozen=True, eq=False, repr=False)
class PackedMatrix(Format, abstract=True):
    """A ``Quantized`` matrix whose codes have another layout; made by its ``prepare`` and never saved.

    ``source`` is the format that was packed with its codes taken away. A layout states its tensors, ``codes``,
    ``dense`` and ``few``; the rest follows, and some say it faster.
    """

    kernel: ClassVar[str]
    """The name by which the product is chosen."""

    source: Any

    @property
    def wide(self) -> int:
        """The columns of rows that the operator takes."""
        raise NotImplementedError

    @property
    def stored(self) -> int:
        """The bytes of the layout, without what ``source`` holds."""
        raise NotImplementedError

    def codes(self) -> Tensor:
        """The codes (rows, columns), as they were before they were packed."""
        raise NotImplementedError

    def dense(self, dtype: torch.dtype) -> Tensor:
        """W, each number as ``source`` states it, rounded once to ``dtype``."""
        raise NotImplementedError

    def few(self, x: Tensor) -> Tensor:
        """The operator's product: x (rows, in or ``wide``), bfloat16, to (rows, out or more), bfloat16."""
        raise NotImplementedError

    # Derived from these ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.size

    @property
    def dtype(self) -> torch.dtype:
        return self.source.nominal

    @property
    def device(self) -> torch.device:
        return self.source.scale.device

    @property
    def nbytes(self) -> int:
        parts = (self.source.scale, self.source.zero)
        return self.stored + sum(part.nbytes for part in parts if isinstance(part, Tensor))

    def restore(self) -> Any:
        """The format that was packed, bit for bit."""
        return dataclasses.replace(self.source, codes=pack(self.codes(), self.source.bits))

    def pad(self, x: Tensor) -> Tensor:
        """Rows x (rows, in or ``wide``) with zeros up to ``wide``."""
        return x if x.shape[1] == self.wide else F.pad(x, (0, self.wide - x.shape[1]))

    def many(self, x: Tensor) -> Tensor:
        """The product with the numbers restored in x's dtype: x (rows, in) to (rows, out)."""
        return F.linear(x, self.dense(x.dtype))

    def linear(self, x: Tensor) -> Tensor:
        return self.many(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

    def combine(self, weights: Tensor) -> Tensor:
        return weights @ self.dense(weights.dtype)

    def rows(self, index: Tensor) -> Tensor:
        flat = torch.arange(self.shape[0], device=index.device)[index.reshape(-1)]  # refuses what lies past the end
        values = self.source.restore_rows(self.codes_of(flat), flat)
        return values.reshape(*index.shape, self.shape[1])

    def codes_of(self, index: Tensor) -> Tensor:
        """The codes of some rows (count,); here all are unpacked for them."""
        return self.codes()[index]


def without_codes(source: Any) -> Any:
    """A quantised format whose codes are on the meta device, since a layout holds them."""
    return dataclasses.replace(source, codes=source.codes.to("meta"))
