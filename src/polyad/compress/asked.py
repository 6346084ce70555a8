"""The settings of a run besides its method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from polyad.data.calibration import CALIBRATION_WINDOWS


@dataclass(frozen=True)
class Asked:
    """The settings of a run besides its method: the same for every point of a comparison."""

    calibrate: tuple[Any, ...] = ("stdlib",)
    evaluate: tuple[Any, ...] = ("stdlib",)
    budget: str = "parameters"
    select: Any = None
    allocate: str | None = None
    store: torch.dtype = torch.bfloat16
    calibration_windows: int = CALIBRATION_WINDOWS
    windows: int = 24
    alternations: int = 15
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    seed: int = 0
    avoid_slow: bool = False
