"""The record of a layer's statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Moments:
    """Statistics of one module's input x, and of its output y, over the ``count`` rows seen.

    ``values`` holds those that were collected, by name; the usual ones are attributes too, None where they were not
    asked for. ``derived`` keeps what methods computed of them and would compute again; small things only.

    >>> Moments(9, second=torch.eye(2), mean=torch.zeros(2)).covariance().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, count: int = 0, **values: Tensor | None) -> None:
        self.count = count
        self.values: dict[str, Tensor] = {name: value for name, value in values.items() if value is not None}
        self.derived: dict[Any, Tensor] = {}

    @property
    def second(self) -> Tensor | None:
        """E[x xᵀ], of shape (in, in)."""
        return self.values.get("second")

    @property
    def mean(self) -> Tensor | None:
        """E[x], of shape (in,)."""
        return self.values.get("mean")

    @property
    def peak(self) -> Tensor | None:
        """The largest |x| of each column, of shape (in,)."""
        return self.values.get("peak")

    @property
    def output_square(self) -> Tensor | None:
        """E[y²] of each column, of shape (out,)."""
        return self.values.get("output_square")

    @property
    def influence(self) -> Tensor | None:
        """1 - E[cos(x, y)], a number."""
        return self.values.get("influence")

    def covariance(self) -> Tensor:
        """E[x xᵀ] - E[x] E[x]ᵀ."""
        second, mean = required(self.second, "second"), required(self.mean, "mean")
        return second - torch.outer(mean, mean)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={tuple(value.shape)}" for name, value in self.values.items())
        return f"Moments({self.count} rows, {shapes})"


Stats = Mapping[str, Moments]
"""Statistics by the path of the module."""


def required(value: Tensor | None, name: str) -> Tensor:
    """The statistic, or a sentence that it was not collected."""
    if value is None:
        raise ValueError(f"the statistic {name!r} was not collected; calibrate with a text: calibrate='stdlib'")
    return value
