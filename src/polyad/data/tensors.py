"""Files of any kind as tensors, with how their shape was understood."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from polyad.data.arrays import read_arrays, read_safetensors, to_tensor
from polyad.data.coordinates import read_coordinates
from polyad.data.number_tables import read_numbers

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
FILMS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})
READ = (".npy", ".npz", ".safetensors", ".csv", ".mat", ".tns", *sorted(PICTURES), *sorted(FILMS))
COLOURS = {3: "red, green and blue", 4: "red, green, blue and opacity"}


@dataclass(frozen=True)
class Reading:
    """A tensor as it is stored, how it was understood, and the names of its modes where the file says them."""

    tensor: Tensor
    how: str = ""
    modes: tuple[str, ...] | None = None


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a file by name, as they are stored; a file that holds one without a name calls it by its stem.

    ``read_file`` says how they were understood too. Nothing is unpickled.

    >>> import tempfile, numpy
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     numpy.save(folder + "/ones.npy", numpy.ones((2, 3)))
    ...     {name: tuple(x.shape) for name, x in read_tensors(folder + "/ones.npy").items()}
    {'ones': (2, 3)}
    """
    return {name: reading.tensor for name, reading in read_file(path).items()}


def read_file(path: str | Path) -> dict[str, Reading]:
    """The tensors in a file by name; a file that holds one without a name calls it by its stem. Nothing is unpickled.

    A folder of pictures of one size is a stack of them, in the order of their names.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "scores.csv"
    ...     _ = file.write_text("a,b,c\\n1,2,3\\n4,5,6\\n")
    ...     read_file(file)["scores"].how
    'rows and columns of numbers, the header left out'
    """
    path = Path(path)
    kind = path.suffix.lower()
    if path.is_dir():
        return {path.name: _stack(path)}
    if kind not in READ:
        raise ValueError(f"{path} is of a kind that is not read; known are {', '.join(READ)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if kind in PICTURES:
        return {path.stem: _picture(path)}
    if kind in FILMS:
        from polyad.interop.video import read_frames

        modes = ("frame", "height", "width", "colour")
        return {path.stem: Reading(read_frames(path), "frames of red, green and blue", modes)}
    if kind == ".csv":
        numbers, how = read_numbers(path)
        return {path.stem: Reading(numbers, how, ("row", "column"))}
    if kind == ".tns":
        return {path.stem: Reading(*read_coordinates(path))}
    tensors = _named_tensors(path, kind)
    if not tensors:
        raise ValueError(f"{path} holds no tensor; give a file with at least one")
    return {name: Reading(tensor) for name, tensor in tensors.items()}


def _named_tensors(path: Path, kind: str) -> dict[str, Tensor]:
    if kind == ".mat":
        from polyad.interop.matlab import read_mat

        return {name: to_tensor(array, f"{path}: {name}") for name, array in read_mat(path).items()}
    return read_safetensors(path) if kind == ".safetensors" else read_arrays(path)


def _picture(path: Path) -> Reading:
    """A picture, or the frames of one that holds several."""
    from polyad.interop.pillow import read_pictures

    frames = read_pictures(path)
    pixels = frames[0] if len(frames) == 1 else torch.stack(frames)
    return Reading(pixels, *_picture_words(frames[0], several="frame" if len(frames) > 1 else None))


def _stack(path: Path) -> Reading:
    """The pictures of a folder, one behind another."""
    from polyad.interop.pillow import read_picture

    files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
    if not files:
        raise ValueError(f"{path} is a folder without pictures; name one file in it, or a folder of pictures")
    pictures = [read_picture(file) for file in files]
    other = next((i for i, picture in enumerate(pictures) if picture.shape != pictures[0].shape), None)
    if other is not None:
        raise ValueError(
            f"the pictures of {path} differ in size: {files[0].name} is {tuple(pictures[0].shape)}, "
            f"{files[other].name} {tuple(pictures[other].shape)}; bring them to one size, or name one file"
        )
    return Reading(torch.stack(pictures), *_picture_words(pictures[0], several="picture"))


def _picture_words(pixels: Tensor, several: str | None) -> tuple[str, tuple[str, ...]]:
    colours = "grey values" if pixels.ndim == 2 else COLOURS.get(pixels.shape[2], f"{pixels.shape[2]} channels")
    modes = ("height", "width", "colour")[: pixels.ndim]
    if several is None:
        return f"a picture of {colours}", modes
    return f"{several}s of {colours}", (several, *modes)
