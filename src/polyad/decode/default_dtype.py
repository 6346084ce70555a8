"""The dtype in which a model decodes where none is asked for."""

from __future__ import annotations

import functools
import statistics
import time

import torch
from torch.nn import functional as F

ROWS = (1, 64)
"""Products of one token and of a prompt, of which bfloat16 must make both no slower."""


@functools.cache
def default_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 where this processor multiplies it no slower than float32, measured once; float32 elsewhere."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if kind != "cpu":
        return torch.float32
    ratios = (_seconds(rows, torch.bfloat16) / _seconds(rows, torch.float32) for rows in ROWS)
    return torch.bfloat16 if all(ratio <= 1.1 for ratio in ratios) else torch.float32


@torch.inference_mode()
def _seconds(rows: int, dtype: torch.dtype) -> float:
    """Processor time of a product with a matrix that fits no near cache."""
    x, weight = torch.ones(rows, 1024, dtype=dtype), torch.ones(2048, 1024, dtype=dtype)
    times = []
    for _ in range(7):
        start = time.process_time()
        F.linear(x, weight)
        times.append(time.process_time() - start)
    return statistics.median(times[1:])
