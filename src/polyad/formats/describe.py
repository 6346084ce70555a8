"""Formats in a line of words, and their error against a dense tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad import _check
from polyad._calls import tensor_of


def describe_format(one: Any) -> str:
    """The kind with its shape, rank where it has one, dtype, numbers and bytes.

    >>> from polyad.formats import LowRank
    >>> LowRank(torch.ones(4, 2), torch.ones(2, 3))
    LowRank(shape=(4, 3), rank=2, dtype=float32, parameters=14, bytes=56)
    """
    rank = getattr(one, "rank", None)
    try:
        dtype = str(one.dtype).removeprefix("torch.")
    except TypeError:  # of what holds no floating-point number
        dtype = None
    shown = {"shape": one.shape, "rank": rank, "dtype": dtype, "parameters": one.parameters, "bytes": one.nbytes}
    return f"{type(one).__name__}({', '.join(f'{key}={value}' for key, value in shown.items() if value is not None)})"


def dense_array(dense: Tensor) -> Any:
    """A dense tensor as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    dense = dense.detach().cpu().resolve_conj()
    return (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()


def relative_error(x: Any, dense: Tensor, mask: Any = None) -> float:
    """``‖dense - x‖ / ‖x‖`` in float64, over what a mask shows; of numbers of any size.

    >>> relative_error([[3.0, 4.0]], torch.tensor([[3.0, 0.0]]))
    0.8
    """
    array = hasattr(x, "strides") and not isinstance(x, Tensor)  # of NumPy, of any strides
    exact = (tensor_of(x) if array else torch.as_tensor(x)).detach().to(dense.device)
    if exact.shape != dense.shape:
        raise ValueError(
            f"x has shape {tuple(exact.shape)}, the format {tuple(dense.shape)}; give the tensor that it stands for"
        )
    seen = None if mask is None else torch.as_tensor(mask, device=dense.device).bool()
    exact = exact if seen is None else torch.where(seen, exact, torch.zeros_like(exact))
    _check.finite("x", exact)
    wide = torch.complex128 if exact.is_complex() or dense.is_complex() else torch.float64
    size = exact.abs().max().double()
    size = size.where(size > 0, 1)  # so that the squares of very large and small numbers are those of near ones
    whole = exact.to(wide) / size
    rest = dense.detach().to(wide) / size - whole
    return float((rest if seen is None else rest * seen).norm() / whole.norm().clamp(min=1e-300))
