"""Pictures, read by Pillow."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_picture", "read_pictures"]


def read_picture(path: str | Path) -> Tensor:
    """The pixels of a picture, (height, width) or (height, width, channels), uint8 or wider as stored.

    16 bits a pixel become int32, in which torch can compute. Of 16 bits a colour Pillow gives the upper 8, with a
    warning.

    Palettes are looked up. Raises ImportError with what to install where Pillow is missing, ValueError where the
    file is no picture.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (4, 3)).save(folder + "/black.png")
    ...     read_picture(folder + "/black.png").shape
    torch.Size([3, 4, 3])
    """
    return _frames(path, first=True)[0]


def read_pictures(path: str | Path) -> list[Tensor]:
    """The frames of a picture that holds several, such as a .gif or a .tiff, each as ``read_picture`` has it.

    Frames of different sizes are refused.
    """
    frames = _frames(path, first=False)
    if len({tuple(frame.shape) for frame in frames}) > 1:
        raise ValueError(f"{path} holds frames of different sizes; save them one by one")
    return frames


def _frames(path: str | Path, *, first: bool) -> list[Tensor]:
    try:
        from PIL import Image, ImageSequence, UnidentifiedImageError
    except ImportError:
        raise ImportError("pictures need Pillow; install it with pip install 'polyad[pictures]'") from None
    try:
        with Image.open(path) as picture:
            _warn_of_cut_colours(picture, path)
            several = not first and getattr(picture, "n_frames", 1) > 1
            return [_pixels(frame) for frame in (ImageSequence.Iterator(picture) if several else [picture])]
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is no picture that Pillow reads ({error})") from None


def _pixels(picture: Any) -> Tensor:
    import numpy

    picture = picture.convert("RGB") if picture.mode in ("P", "CMYK", "YCbCr") else picture
    pixels = numpy.array(picture)
    wide = pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2
    return torch.from_numpy(pixels.astype(numpy.int32 if wide else pixels.dtype.newbyteorder("=")).copy())


def _warn_of_cut_colours(picture: Any, path: str | Path) -> None:
    """Say where colours are stored in more bits than Pillow gives."""
    bits = 8
    if picture.format == "PNG":
        with Path(path).open("rb") as file:
            bits = file.read(25)[-1]  # the header states it in its ninth byte
    elif picture.format == "TIFF":
        stored = picture.tag_v2.get(258, 8)
        bits = max(stored) if isinstance(stored, tuple) else stored
    if bits > 8 and picture.mode in ("RGB", "RGBA", "LA", "CMYK"):
        warnings.warn(
            f"{path} holds {bits} bits a colour, of which Pillow gives the upper 8; save it as .npy to keep them all",
            stacklevel=4,
        )
