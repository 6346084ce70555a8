"""Arguments held to their types, in words."""

from __future__ import annotations

from typing import Any


def check_type(name: str, value: Any, kind: type[Any], remedy: str) -> None:
    """Refuse an argument of another type than ``kind``; ``remedy`` says what to give."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {type(value).__name__} and no {kind.__name__}; {remedy}")


def tensor_of(array: Any, *, floats: bool = False) -> Any:
    """A tensor of a NumPy array's numbers, whatever its strides and the order of its bytes.

    With ``floats`` whole numbers become float64, in which all but the largest are exact.
    """
    import torch

    if floats and array.dtype.kind in "iu":
        array = array.astype("float64")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")).copy())
