"""Arrays in files of NumPy and of safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, UnicodeError, RuntimeError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); fetch or save it again") from None


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of a .npy or .npz file by name."""
    import numpy

    with path.open("rb") as file:
        magic = file.read(6)
    if path.suffix.lower() == ".npy" and magic != b"\x93NUMPY":
        raise ValueError(f"{path} is no NumPy file, whatever its name says; save the array with numpy.save")
    try:
        stored: Any = numpy.load(path, allow_pickle=False)
        arrays = (
            {name: stored[name] for name in stored.files} if path.suffix.lower() == ".npz" else {path.stem: stored}
        )
    except Exception as error:  # its readers of headers, of zip files and of deflated bytes raise what they like
        raise ValueError(
            f"{path} holds no plain numbers that can be read ({error}); save it anew with numpy.save, without objects"
        ) from None
    return {name: to_tensor(array, f"{path}: {name}") for name, array in arrays.items()}


def to_tensor(array: Any, what: str) -> Tensor:
    """A tensor of the same numbers, whatever the order of their bytes."""
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{what} has dtype {array.dtype}, which are no numbers; save an array of numbers")
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")).copy())
    except TypeError:  # such as longdouble, wider than any dtype of torch
        raise ValueError(f"{what} has dtype {array.dtype}, which torch does not have; save it as float64") from None
