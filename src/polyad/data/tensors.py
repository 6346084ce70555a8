"""Tensors in files: NumPy arrays, safetensors, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
READ = (".npy", ".npz", ".safetensors", *sorted(PICTURES))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a file by name, as they are stored; a file that holds one without a name calls it by its stem.

    A picture is (height, width) or (height, width, channels) of integers. Nothing is unpickled.

    >>> import tempfile, numpy
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     numpy.save(folder + "/ones.npy", numpy.ones((2, 3)))
    ...     {name: tuple(x.shape) for name, x in read_tensors(folder + "/ones.npy").items()}
    {'ones': (2, 3)}
    """
    path = Path(path)
    kind = path.suffix.lower()
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name one file in it")
    if kind not in READ:
        raise ValueError(f"{path} is of a kind that is not read; known are {', '.join(READ)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if kind in PICTURES:
        from polyad.interop.pillow import read_picture

        return {path.stem: read_picture(path)}
    tensors = _safetensors(path) if kind == ".safetensors" else _arrays(path)
    if not tensors:
        raise ValueError(f"{path} holds no tensor; give a file with at least one")
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, UnicodeError, RuntimeError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); fetch or save it again") from None


def _arrays(path: Path) -> dict[str, Tensor]:
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
    return {name: _tensor(array, f"{path}: {name}") for name, array in arrays.items()}


def _tensor(array: Any, what: str) -> Tensor:
    """A tensor of the same numbers, whatever the order of their bytes."""
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{what} has dtype {array.dtype}, which are no numbers; save an array of numbers")
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")).copy())
    except TypeError:  # such as longdouble, wider than any dtype of torch
        raise ValueError(f"{what} has dtype {array.dtype}, which torch does not have; save it as float64") from None
