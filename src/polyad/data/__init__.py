"""Texts with their splits, and the measuring protocol's windows."""

from polyad.data.calibration import Calibration, calibration, evaluation
from polyad.data.records import Record, Records
from polyad.data.sources import read
from polyad.data.text import Text, at_hand, digest, sotu, split, stdlib, windows
from polyad.models.special_tokens import Frame, frame, tokenizer_frame

__all__ = [
    "Calibration", "Frame", "Record", "Records", "Text", "at_hand", "calibration", "digest", "evaluation", "frame",
    "read", "sotu", "split", "stdlib", "tokenizer_frame", "windows",
]  # fmt: skip
