"""Checks of starts that the caller brings, and of the modes whose factors stay as they are there."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from polyad import _check
from polyad.formats import Format


def check_init(x: Tensor, batch: int, init: Format | None, fixed: Sequence[int], kind: type[Format]) -> None:
    """Refuse starts that are not finite, of this kind and of x's shape, and modes to fix that x or init lacks."""
    shape = tuple(x.shape[batch:])
    for mode in fixed:
        if isinstance(mode, bool) or not hasattr(mode, "__index__") or not 0 <= mode < len(shape):
            raise ValueError(f"fixed={fixed} must name modes of shape {shape}, from 0 to {len(shape) - 1}")
    if init is None:
        if len(fixed):
            raise ValueError(
                f"fixed={fixed} keeps factors of a start, and none is given; give init, a {kind.__name__}"
            )
        return
    if not isinstance(init, kind):
        raise TypeError(f"init is a {type(init).__name__}; give a {kind.__name__} of x's shape")
    if init.shape != tuple(x.shape) or getattr(init, "batch", 0) != batch:
        raise ValueError(f"init of shape {init.shape} does not start a decomposition of x of shape {tuple(x.shape)}")
    if init.dtype.is_complex and not x.is_complex():
        raise TypeError(f"init has dtype {init.dtype} and x {x.dtype}; both must be real, or x complex too")
    for name, tensor in init.tensors().items():
        _check.finite(f"init.{name}", tensor)


def check_not_negative(init: Format) -> None:
    """Refuse starts with negative entries."""
    for name, tensor in init.tensors().items():
        if bool((tensor < 0).any()):
            raise ValueError(f"init.{name} has negative entries; take {name}.clamp(min=0) or .abs()")
