"""TensorLy's decomposed tensors, to and from formats."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad.formats import CP, Format, TensorTrain, Tucker

__all__ = ["from_tensorly", "to_tensorly"]


def to_tensorly(format: Format) -> Any:
    """A CP, Tucker or tensor train format as TensorLy's counterpart, of the same torch tensors.

    TensorLy's trains have bonds of size one at both ends. Raises ValueError for other formats and for batches,
    ImportError where TensorLy is missing. TensorLy's own backend is left as it is; ``set_backend("pytorch")`` makes
    it compute with what this returns.

    >>> weights, factors = to_tensorly(CP((torch.ones(3, 2), torch.ones(4, 2))))
    >>> weights.shape, factors[1].shape
    (torch.Size([2]), torch.Size([4, 2]))
    """
    try:
        from tensorly.cp_tensor import CPTensor
        from tensorly.tt_tensor import TTTensor
        from tensorly.tucker_tensor import TuckerTensor
    except ImportError:
        raise ImportError("TensorLy is not installed; pip install 'polyad[interop]' brings it") from None
    if getattr(format, "batch", 0):
        raise ValueError(f"{format!r} is a batch, which TensorLy does not have; convert its members one by one")
    if isinstance(format, CP):
        weights = format.factors[0].new_ones(format.rank) if format.weights is None else format.weights
        return _plain(CPTensor, (weights, list(format.factors)), format)
    if isinstance(format, Tucker):
        return _plain(TuckerTensor, (format.core, list(format.factors)), format)
    if isinstance(format, TensorTrain):
        first, last = format.cores[0].unsqueeze(0), format.cores[-1].unsqueeze(-1)
        one = [format.cores[0][None, :, None]]
        return _plain(TTTensor, one if len(format.cores) == 1 else [first, *format.cores[1:-1], last], format)
    raise ValueError(f"TensorLy has no counterpart of {format!r}; CP, Tucker and TensorTrain are converted")


def _plain(kind: Any, parts: Any, format: Any) -> Any:
    """An instance without TensorLy's validation, which would need its backend to be torch."""
    tensor = kind.__new__(kind)
    tensor.shape, tensor.rank = tuple(format.shape), format.rank
    if kind.__name__ == "CPTensor":
        tensor.weights, tensor.factors = parts
    elif kind.__name__ == "TuckerTensor":
        tensor.core, tensor.factors = parts
    else:
        tensor.factors, tensor.rank = parts, (1, *format.rank, 1)
    return tensor


def from_tensorly(x: Any) -> CP | Tucker | TensorTrain:
    """TensorLy's CPTensor, TuckerTensor or TTTensor, on whatever backend, as a format of torch tensors.

    Raises ValueError for anything else. Tensors of other backends are copied.

    >>> from_tensorly(to_tensorly(CP((torch.ones(3, 2), torch.ones(4, 2))))).shape
    (3, 4)
    """
    kind = type(x).__name__
    if kind == "CPTensor":
        weights = None if x.weights is None else _tensor(x.weights)
        return CP(tuple(map(_tensor, x.factors)), weights)
    if kind == "TuckerTensor":
        return Tucker(_tensor(x.core), tuple(map(_tensor, x.factors)))
    if kind == "TTTensor":
        cores = [_tensor(core) for core in x.factors]
        cores[0] = cores[0].squeeze(0)
        cores[-1] = cores[-1].squeeze(-1)
        return TensorTrain(tuple(cores))
    raise ValueError(f"a {kind} is not converted; give a CPTensor, a TuckerTensor or a TTTensor of TensorLy's")


def _tensor(x: Any) -> Tensor:
    if isinstance(x, Tensor):
        return x
    import numpy

    return torch.from_numpy(numpy.array(x))
