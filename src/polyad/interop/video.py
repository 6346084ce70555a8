"""Frames of films, read by PyAV."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_frames"]


def read_frames(path: str | Path) -> Tensor:
    """All frames of a film's first video stream, uint8 of shape (frames, height, width, 3).

    Raises ImportError with what to install where PyAV is missing, ValueError where the file is no film.
    """
    try:
        av: Any = importlib.import_module("av")
    except ImportError:
        raise ImportError(
            f"{path} needs PyAV to be read; install it with pip install av, or save its frames as pictures"
        ) from None
    try:
        with av.open(str(path)) as film:
            frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is no film that PyAV reads ({error})") from None
    if not frames:
        raise ValueError(f"{path} holds no frames")
    return torch.stack(frames)
