"""The dtype in which a model decodes where none is asked for."""

from __future__ import annotations

import functools
import time

import torch
from torch.nn import functional as F

LIMITS = {1: 1.5, 64: 1.0}
"""Rows, and the time of bfloat16 over that of float32 up to which it is chosen: a matrix here lies in a near cache,
and one row meets those of a model in memory, where they are half as large."""


def default_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 where this processor multiplies it no slower than float32, measured once; float32 elsewhere."""
    return _choose_dtype(torch.device(device).type)


@functools.cache
def _choose_dtype(kind: str) -> torch.dtype:
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if kind != "cpu":
        return torch.float32
    fast = all(
        _seconds(rows, torch.bfloat16) <= limit * _seconds(rows, torch.float32) for rows, limit in LIMITS.items()
    )
    return torch.bfloat16 if fast else torch.float32


@torch.inference_mode()
def _seconds(rows: int, dtype: torch.dtype) -> float:
    """Processor time of a product, the least of several."""
    x, weight = torch.ones(rows, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    times = []
    for _ in range(15):
        start = time.process_time()
        F.linear(x, weight)
        times.append(time.process_time() - start)
    return min(times)
