"""The product of a weight with rows, by the kernel that suits their number."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.formats import Format
from polyad.layers.factors import Factors
from polyad.layers.kernels.choice import CHOICES
from polyad.layers.kernels.pack import check_kernels, pack_parts, stored_bytes
from polyad.layers.kernels.prepared import most_rows, pack_if_faster, prepare_factors
from polyad.layers.kernels.runs import KernelRun, Matrix, run_flat, run_for


class KernelProduct:
    """``y = x Wᵀ + b`` for x of shape (…, in) and of the dtype that it was made for, y of shape (…, out).

    ``name`` says what serves few rows and what serves many, ``nbytes`` what is held for it.
    """

    __slots__ = ("_bias", "_run", "name", "nbytes")

    def __init__(self, run: KernelRun, bias: Tensor | None, nbytes: int) -> None:
        self._run, self._bias, self.name, self.nbytes = run, bias, run.name, nbytes

    def __call__(self, x: Tensor) -> Tensor:
        y = run_flat(self._run, x)
        return y if self._bias is None else y + self._bias

    def __repr__(self) -> str:
        return f"Product({self.name}, bytes={self.nbytes})"


def product(
    weight: Format | Tensor | Factors, bias: Tensor | None, dtype: torch.dtype, *, kernels: str = "auto"
) -> KernelProduct:
    """The product of a matrix W of shape (out, in) with rows of ``dtype``, by the kernels that are fast here.

    A ``Factors`` is packed in its place, so that its codes are held once; of a format, a packed copy is held beside
    it. Numbers of W are cast to ``dtype`` once, codes and scales never. ``kernels`` is ``auto`` (by measurement),
    ``plain``, or the name of the one that is to be used wherever it fits.

    >>> run = product(torch.eye(3), None, torch.float32)
    >>> run(torch.ones(2, 3)).shape, run.name
    (torch.Size([2, 3]), 'plain')
    """
    check_kernels(kernels)
    if len(weight.shape) != 2:
        raise ValueError(f"weight has the shape {tuple(weight.shape)}; a product needs a matrix: two dimensions")
    shift = None if bias is None else bias.detach().to(dtype)
    if isinstance(weight, Tensor):
        dense = weight.detach().to(dtype)
        return KernelProduct(Matrix(dense), shift, dense.nbytes)
    prepared = prepare_factors(weight, kernels, dtype) if isinstance(weight, Factors) else None
    if prepared is not None:
        return KernelProduct(prepared.run(dtype), shift, stored_bytes(prepared.format))
    matrix = weight() if isinstance(weight, Factors) else weight
    with torch.inference_mode(False), torch.no_grad():
        format = pack_parts(matrix.to(dtype), lambda part: pack_if_faster(part, kernels, dtype))
    CHOICES.write()
    return KernelProduct(run_for(format, dtype, most_rows(kernels)), shift, stored_bytes(format))
