"""Statistics of a layer's inputs for the contracts: made from rows, and changed as the inputs are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polyad.statistics import Moments

Change = Callable[[Tensor], Tensor]


def moments(rows: Tensor, weight: Tensor) -> Moments:
    """All that a method may ask of a layer's inputs (count, in) and outputs; in the weight's dtype, or float32."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    second, outputs = rows.mT @ rows / len(rows), rows @ weight.double().mT
    parts = {"second": second, "mean": rows.mean(0), "peak": rows.abs().amax(0)}
    parts["output_square"] = outputs.square().mean(0)
    return Moments(len(rows), **{name: part.to(wide) for name, part in parts.items()})


def second_moment(stats: Moments) -> Tensor:
    """The second moment of the inputs, which is there."""
    assert stats.second is not None
    return stats.second


def scale_inputs(stats: Moments, factor: float) -> Moments:
    """The statistics of the inputs times a factor."""
    return change_inputs(stats, lambda second: second * factor**2, lambda column: column * factor)


def permute_inputs(stats: Moments, columns: Tensor) -> Moments:
    """The statistics of the inputs in another order."""
    return change_inputs(stats, lambda second: second[columns][:, columns], lambda column: column[columns])


def change_inputs(stats: Moments, second: Change, column: Change) -> Moments:
    """The statistics of the inputs, the second moment changed in one way and columns in another."""
    columns = {name: column(stats.values[name]) for name in ("mean", "peak") if name in stats.values}
    return Moments(stats.count, second=second(second_moment(stats)), **columns)


def replace_second(stats: Moments, second: Tensor) -> Moments:
    """The statistics with another second moment."""
    return Moments(stats.count, **{**stats.values, "second": second})
