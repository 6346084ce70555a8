"""Checks of arguments, and the sentences that they say."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

N = TypeVar("N", int, float)
PART = 2**24
"""Numbers of a tensor that are looked at in one go."""


def finite(name: str, x: Tensor) -> Tensor:
    """Refuse NaN and infinities, naming the tensor and how many there are. Returns the tensor."""
    parts = (x,) if x.numel() <= PART else x.split(max(1, len(x) * PART // x.numel()))  # a look copies
    if x.is_meta or not (x.is_floating_point() or x.is_complex()) or all(bool(p.isfinite().all()) for p in parts):
        return x
    nan, inf = int(torch.isnan(x).sum()), int(torch.isinf(x).sum())
    raise ValueError(
        f"{name} of shape {tuple(x.shape)} holds {nan} NaN and {inf} infinite numbers; "
        "repair them first (torch.nan_to_num), or hide missing ones where there is a mask= (cp_als, hooi, gcp)"
    )


def floating(name: str, x: Tensor, *, sparse: bool = False, complex_too: bool = False) -> Tensor:
    """Refuse what is no tensor, and tensors that are not real floating point or not dense. Returns the tensor.

    ``sparse`` says that the caller looks at the layout itself, ``complex_too`` that it takes complex numbers.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a {type(x).__name__}; a tensor is needed: torch.as_tensor({name})")
    if x.is_complex() and not complex_too:
        raise TypeError(
            f"{name} has dtype {x.dtype}; a real tensor is needed: {name}.abs() for magnitudes, or "
            f"torch.view_as_real({name}), which has real and imaginary parts along one mode more"
        )
    if not x.is_floating_point() and not x.is_complex():
        raise TypeError(f"{name} has dtype {x.dtype}; a real floating-point tensor is needed: {name}.float()")
    if not sparse and x.layout != torch.strided:
        raise ValueError(
            f"{name} is sparse ({x.layout}); a dense tensor is needed: {name}.to_dense(). sparse_cp_als, nmf and "
            "UpdatingSVD take sparse ones as they are"
        )
    return x


def real(name: str, x: Any) -> None:
    """Refuse a format of complex numbers, for an operation of this name that conjugates nothing."""
    if x.dtype.is_complex:
        raise TypeError(
            f"{name} of {x!r} with dtype {x.dtype} is not known for complex numbers; norm, inner, sums, products and "
            "to_dense() are"
        )


def real_tensors(kind: str, *tensors: Tensor) -> None:
    """Refuse to build a format of this kind of complex numbers, with which its transforms cannot compute."""
    for x in tensors:
        if x.is_complex():
            raise TypeError(
                f"a {kind} of {x.dtype} is not known; hold real and imaginary parts (x.real, x.imag) in two, or use "
                "a multilinear format such as LowRank, CP, Tucker or TensorTrain"
            )


def dimensions(name: str, x: Tensor, least: int) -> Tensor:
    """Refuse tensors of fewer than ``least`` dimensions, and empty ones. Returns the tensor."""
    if x.ndim < least:
        raise ValueError(f"{name} has {x.ndim} dimensions (shape {tuple(x.shape)}); at least {least} are needed")
    if x.numel() == 0:
        raise ValueError(f"{name} of shape {tuple(x.shape)} is empty; every dimension must be at least 1")
    return x


def batch(value: int, x: Tensor, modes: int) -> Tensor:
    """Refuse counts of leading dimensions that leave x fewer than ``modes`` dimensions, and empty x. Returns x."""
    if value < 0:
        raise ValueError(f"batch={value} is negative; it is the number of leading dimensions that count tensors")
    if value and x.ndim < value + modes:
        raise ValueError(
            f"x has {x.ndim} dimensions (shape {tuple(x.shape)}); at least {value + modes} are needed, batch={value}"
        )
    return dimensions("x", x, value + modes)


def rank(value: int, limit: int, what: str, name: str = "rank") -> int:
    """Refuse a rank below 1 or above ``limit``; ``what`` says what sets the limit. Returns the rank."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}={value!r} is no whole number; choose from 1 to {limit}")
    if value < 1:
        raise ValueError(f"{name}={value} is below 1; choose from 1 to {limit}")
    if value > limit:
        raise ValueError(f"{name}={value} exceeds {what}; choose from 1 to {limit}")
    return value


def weight(x: Tensor, rank_: int) -> Tensor:
    """Refuse a layer's weight that is no finite real matrix (out, in), and ranks that it cannot have. Returns it."""
    if floating("weight", x).ndim != 2:
        raise ValueError(f"weight has {x.ndim} dimensions (shape {tuple(x.shape)}); a matrix (out, in) is needed")
    rank(rank_, min(dimensions("weight", x, 2).shape), f"the smaller side of the weight of shape {tuple(x.shape)}")
    return finite("weight", x)


def ranks(value: tuple[int, ...] | int | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Refuse all but one rank a mode, each from 1 to the mode's size, or one for all. Returns them; None stays None.

    One number for all is cut to the size of modes that are smaller.
    """
    if value is None:
        return None
    if hasattr(value, "__index__") and not isinstance(value, bool):
        one = rank(value, max(shape), f"every mode of shape {shape}")  # pyright: ignore[reportArgumentType]
        return tuple([min(one, n) for n in shape])
    if not isinstance(value, tuple | list) or len(value) != len(shape):
        raise ValueError(f"rank={value} must give one number for each of the {len(shape)} modes of shape {shape}")
    for mode, (r, n) in enumerate(zip(value, shape, strict=True)):
        rank(r, n, f"mode {mode} of shape {shape}", f"rank[{mode}]")
    return tuple(value)


def bits(value: int) -> int:
    """Refuse widths that cannot be packed. Returns the number of bits."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"bits={value!r} is no whole number; choose from 1 to 8")
    if not 1 <= value <= 8:
        raise ValueError(f"bits={value} cannot be packed; choose from 1 to 8")
    return value


def share(name: str, value: float) -> float:
    """Refuse shares outside (0, 1]. Returns the share."""
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__} and no number; write {name}=0.8")
    if not 0 < value <= 1:
        raise ValueError(f"{name}={value} is not a share; give a number above 0 and up to 1, such as {name}=0.8")
    return value


def at_least(name: str, value: N, least: float) -> N:
    """Refuse numbers below ``least``, and NaN. Returns the number."""
    if not hasattr(value, "__float__"):
        raise TypeError(f"{name}={value!r} is no number; it must be at least {least}")
    if not value >= least:
        raise ValueError(f"{name}={value} must be at least {least}")
    return value


def exactly_one(**values: object) -> None:
    """Refuse calls that give none or several of these arguments."""
    if len(given := [name for name, value in values.items() if value is not None]) != 1:
        raise ValueError(f"give exactly one of {', '.join(values)}; given: {', '.join(given) or 'none'}")


def tolerance(value: float, name: str = "tol") -> float:
    """Refuse relative errors outside [0, 1). Returns the tolerance."""
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value} is not a relative error; give a number from 0 up to, but not, 1")
    return value


def iterations(max_iter: int, stop: float | None = None, least: int = 0) -> int:
    """Refuse counts of iterations below ``least``, and a relative change to stop at that is NaN or negative."""
    if isinstance(max_iter, bool) or not hasattr(max_iter, "__index__"):
        raise TypeError(f"max_iter={max_iter!r} is no whole number; choose {least} or more iterations")
    if max_iter < least:
        raise ValueError(f"max_iter={max_iter} is below {least}; choose {least} or more iterations")
    if stop is not None and not (hasattr(stop, "__float__") and stop >= 0):
        raise ValueError(
            f"stop={stop} is no relative change; give a number from 0, such as stop=1e-6; iterations end below it"
        )
    return max_iter


@functools.cache
def _written(function: Callable[..., Any]) -> Mapping[str, frozenset[str]]:
    """The types of each argument as they are written, such as {"int", "None"}; none where nothing is written."""
    notes = {name: p.annotation for name, p in inspect.signature(function).parameters.items()}
    return {name: frozenset(kind.strip() for kind in a.split("|")) for name, a in notes.items() if isinstance(a, str)}


def number(function: Callable[..., Any], name: str, value: Any) -> Any:
    """Refuse words and fractions where a function takes numbers, which torch would refuse in its own words."""
    kinds = _written(function).get(name, frozenset())
    if not kinds & {"int", "float"} or not isinstance(value, str | float):
        return value
    if isinstance(value, str):
        if not any(kind == "str" or kind.startswith("Literal") for kind in kinds):
            raise ValueError(f"{name}={value!r} is no number; give one such as {name}=8")
    elif not math.isfinite(value):
        raise ValueError(f"{name}={value} is no finite number; give one such as {name}=8")
    elif "float" not in kinds:
        raise ValueError(f"{name}={value} is no whole number; give one such as {name}={round(value)}")
    return value
