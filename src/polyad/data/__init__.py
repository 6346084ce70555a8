"""Texts with their splits, and the measuring protocol's windows."""

from polyad.data.calibration import Calibration, calibration, evaluation
from polyad.data.text import Text, at_hand, digest, read, sotu, split, stdlib, windows

__all__ = [
    "Calibration", "Text", "at_hand", "calibration", "digest", "evaluation", "read", "sotu", "split", "stdlib",
    "windows",
]  # fmt: skip
