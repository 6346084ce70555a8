"""A function of indices, called once for every entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from polyad import _check


class EvaluationsExhaustedError(Exception):
    """More evaluations are needed than were allowed."""


class Evaluations:
    """Entries of a tensor that a function gives, remembered; ``count`` is how many were evaluated."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], shape: tuple[int, ...], most: int | None, dtype: torch.dtype
    ) -> None:
        self.function, self.shape, self.most, self.dtype = function, shape, most, dtype
        self.count = 0
        self._values: dict[Hashable, float] = {}
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        self._strides = torch.tensor(strides) if math.prod(shape) < 2**63 else None

    def __call__(self, index: Tensor) -> Tensor:
        """Entries (N,) in float64 at an index (N, d)."""
        keys = self._keys(index)
        fresh = {key: row for row, key in enumerate(keys) if key not in self._values}
        if fresh:
            if self.most is not None and self.count + len(fresh) > self.most:
                raise EvaluationsExhaustedError
            values = self._evaluate(index[list(fresh.values())])
            self._values.update(zip(fresh, values, strict=True))
        return torch.tensor([self._values[key] for key in keys], dtype=torch.float64)

    def _keys(self, index: Tensor) -> list[Hashable]:
        if self._strides is not None:
            return (index * self._strides).sum(1).tolist()
        return list(map(tuple, index.tolist()))

    def _evaluate(self, index: Tensor) -> list[float]:
        values = self.function(index)
        if not isinstance(values, Tensor) or values.shape != index.shape[:1]:
            what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"function gave {what} for an index of shape {tuple(index.shape)}; it must give (N,) numbers"
            )
        _check.finite("function(index)", _check.floating("function(index)", values))
        self.count += len(index)
        self.dtype = values.dtype
        return values.tolist()
