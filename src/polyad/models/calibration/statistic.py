"""The interface of a statistic that is summed over the rows of a layer's inputs and outputs."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

STATISTICS: dict[str, type[Statistic]] = {}
"""Every statistic by its name: a subclass of ``Statistic`` is one as soon as its module is imported."""


class Statistic:
    """A running total over rows. One of the ``input`` alone is shared by layers that get the very same tensor."""

    name: ClassVar[str]
    reads: ClassVar[Literal["input", "output", "both"]] = "input"

    def __init_subclass__(cls) -> None:
        STATISTICS[cls.name] = cls

    @staticmethod
    def update(total: Tensor | None, x: Tensor, y: Tensor) -> Tensor:
        """The total with more rows: ``x`` (rows, in), ``y`` (rows, out); the one that is not read is empty."""
        raise NotImplementedError

    @staticmethod
    def numbers(width: int) -> int:
        """Numbers that it holds of rows of this width."""
        return width

    @staticmethod
    def finish(total: Tensor, count: int) -> Tensor:
        """The statistic of a total over ``count`` rows: their mean."""
        return total / count

    @staticmethod
    def join(first: Tensor, second: Tensor, share: float) -> Tensor:
        """The statistic of two parts of the data, the second of which has this share of all rows."""
        return torch.lerp(first, second, share)


def widen(x: Tensor) -> Tensor:
    """The tensor in float32 or better."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
