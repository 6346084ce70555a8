"""Pictures, read by Pillow."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

__all__ = ["read_picture"]


def read_picture(path: str | Path) -> Tensor:
    """The pixels of a picture, (height, width) or (height, width, channels), uint8 or wider as stored.

    Palettes are looked up. Raises ImportError with what to install where Pillow is missing, ValueError where the
    file is no picture.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (4, 3)).save(folder + "/black.png")
    ...     read_picture(folder + "/black.png").shape
    torch.Size([3, 4, 3])
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ImportError("pictures need Pillow; install it with pip install 'polyad[pictures]'") from None
    import numpy

    try:
        with Image.open(path) as picture:
            picture = picture.convert("RGB") if picture.mode in ("P", "CMYK", "YCbCr") else picture
            return torch.from_numpy(numpy.array(picture).copy())
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is no picture that Pillow reads ({error})") from None
