"""The product of a weight with rows, by the kernel that suits their number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats import Format

Run = Callable[[Tensor], Tensor]
"""A product: x of shape (rows, in) to (rows, out), in x's dtype."""


class Product:
    """``y = x Wᵀ + b`` for x of shape (…, in) and of the dtype that it was made for, y of shape (…, out).

    ``name`` says what serves few rows and what serves many, ``nbytes`` what is held for it.
    """

    __slots__ = ("_bias", "_run", "name", "nbytes")

    def __init__(self, run: Run, bias: Tensor | None, name: str, nbytes: int) -> None:
        self._run, self._bias, self.name, self.nbytes = run, bias, name, nbytes

    def __call__(self, x: Tensor) -> Tensor:
        y = self._run(x)
        return y if self._bias is None else y + self._bias

    def __repr__(self) -> str:
        return f"Product({self.name}, bytes={self.nbytes})"


def product(weight: Format | Tensor, bias: Tensor | None, dtype: torch.dtype) -> Product:
    """The product of a matrix W of shape (out, in) with rows of ``dtype``, by the kernels that are fast here.

    >>> run = product(torch.eye(3), None, torch.float32)
    >>> run(torch.ones(2, 3)).shape, run.name
    (torch.Size([2, 3]), 'plain')
    """
    if len(weight.shape) != 2:
        raise ValueError(f"weight has the shape {tuple(weight.shape)}; a product needs a matrix: two dimensions")
    shift = None if bias is None else bias.detach().to(dtype)
    if isinstance(weight, Tensor):
        dense = weight.detach().to(dtype)
        return Product(lambda x: F.linear(x, dense), shift, "plain", dense.nbytes)
    return Product(weight.linear, shift, "plain", weight.nbytes)
