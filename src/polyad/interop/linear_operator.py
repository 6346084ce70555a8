"""Formats as operators of the package linear_operator, for whoever wants solves, log determinants and samples."""

from __future__ import annotations

from typing import Any

import torch

from polyad.formats import Format

__all__ = ["to_linear_operator"]


def to_linear_operator(format: Format) -> Any:
    """A matrix format as a ``linear_operator.LinearOperator`` that multiplies through the format, batches included.

    Its solves are conjugate gradients on those products; nothing is densified by polyad. Raises ValueError where the
    format has fewer than two dimensions, ImportError where the package is missing.

    >>> from polyad.formats import LowRank
    >>> operator = to_linear_operator(LowRank(torch.ones(3, 1), torch.ones(1, 3)))
    >>> (operator @ torch.ones(3)).tolist()
    [3.0, 3.0, 3.0]
    """
    try:
        from linear_operator import LinearOperator
    except ImportError:
        raise ImportError("linear_operator is not installed; pip install 'polyad[interop]' brings it") from None
    if len(format.shape) < 2:
        raise ValueError(f"{format!r} has {len(format.shape)} dimensions; a linear operator is a matrix")

    class Applied(LinearOperator):
        """A matrix known by its products, made again from its tensors as the package wants it."""

        def __init__(self, *tensors: Any, like: Format) -> None:
            super().__init__(*tensors, like=like)
            self.like = like.replace(dict(zip(like.tensors(), tensors, strict=True)))

        def _matmul(self, rhs: Any) -> Any:
            columns = rhs.unsqueeze(-1) if rhs.ndim == 1 else rhs
            batch = self.like.shape[:-2]
            if batch and columns.shape[:-2] != batch:
                columns = columns.expand(*batch, *columns.shape[-2:])
            product = self.like.linear(columns.mT).mT
            return product.squeeze(-1) if rhs.ndim == 1 else product

        def _size(self) -> torch.Size:
            return torch.Size(self.like.shape)

        def _transpose_nonbatch(self) -> Any:
            flipped = self.like.transpose()
            return Applied(*flipped.tensors().values(), like=flipped)

    return Applied(*format.tensors().values(), like=format)
