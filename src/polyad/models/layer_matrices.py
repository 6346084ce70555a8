"""The matrix of a layer that multiplies by one, whichever way round the layer stores it."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from polyad.layers import Conv, Linear

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_transposed(layer: nn.Module) -> bool:
    """True for Conv1D of transformers, a linear layer that stores its matrix as (in, out)."""
    return isinstance(layer, _transposed_types())


def linear_types() -> tuple[type[nn.Module], ...]:
    """The classes of dense linear layers: torch's own, and that of transformers where it is imported."""
    return (nn.Linear, *_transposed_types())


def _transposed_types() -> tuple[type[nn.Module], ...]:
    library = sys.modules.get("transformers.pytorch_utils")  # a model that holds a Conv1D has imported it
    return () if library is None else (library.Conv1D,)


def multiplies(layer: nn.Module) -> bool:
    """True for a linear layer or a convolution, dense or holding a format."""
    return isinstance(layer, (*linear_types(), *CONVOLUTIONS, Linear, Conv))


def flat_weight(weight: Tensor) -> Tensor:
    """A weight as a matrix (out, in): a kernel's rows hold what one output channel reads."""
    return weight if weight.ndim == 2 else weight.flatten(1)


def layer_matrix(layer: Any) -> Tensor:
    """The dense weight of a layer as a matrix (out, in)."""
    weight: Tensor = layer.weight.detach()
    return weight.mT.contiguous() if is_transposed(layer) else flat_weight(weight)


def matrix_shape(layer: Any) -> tuple[int, int]:
    """The shape (out, in) of a layer's weight as a matrix, of a dense one or of a format."""
    shape = tuple(layer.weight.shape)
    if is_transposed(layer):
        return shape[1], shape[0]
    return shape[0], int(torch.Size(shape[1:]).numel())


def stored_shape(layer: Any) -> list[int]:
    """The shape (out, in, …) of a layer's weight, a kernel's dimensions each."""
    return list(matrix_shape(layer) if is_transposed(layer) else layer.weight.shape)
