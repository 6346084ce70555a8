"""Statistics of a calibration, held to what they must be before a codec is made of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SIDES = {"keys": "key", "values": "value", "key_fisher": "key", "value_fisher": "value"}
"""The square matrices of all heads side by side, by the side that they are of."""


def refuse_damaged_statistics(layer: int, seen: Mapping[str, Tensor], heads: int) -> None:
    """Refuse statistics of a layer that are not of one width, or hold NaN or infinite numbers, by their names."""
    widths: dict[str, int] = {}
    for name, value in seen.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name!r} in the calibration of layer {layer} is a {type(value).__name__}, not a tensor")
        wanted = _shape(name, value, heads, widths)
        if wanted is None:
            continue
        if tuple(value.shape) != wanted or not value.is_floating_point():
            raise ValueError(
                f"the calibration of layer {layer} holds {name!r} of shape {tuple(value.shape)} and {value.dtype}, "
                f"where floating-point numbers of shape {wanted} are needed; calibrate this model again"
            )
        if not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"the calibration of layer {layer} holds NaN or infinite numbers for {name!r}; calibrate this model "
                "again"
            )


def _shape(name: str, value: Tensor, heads: int, widths: dict[str, int]) -> tuple[int, ...] | None:
    """The shape that a statistic must have; None for those of which every shape may be right.

    ``widths`` gets the width of a side, all heads together, from the first that has one.
    """
    length = value.shape[-1] // heads * heads if value.ndim else heads
    if name in SIDES:
        width = widths.setdefault(SIDES[name], length)
        return width, width
    if name in ("key_mean", "value_mean"):
        return (widths.setdefault(name.removesuffix("_mean"), length),)
    if name in ("queries", "metric"):
        head = widths.setdefault("key", (value.shape[-1] if value.ndim else 1) * heads) // heads
        return heads, head, head
    return None
