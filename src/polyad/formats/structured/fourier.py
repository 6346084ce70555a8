"""Fast Fourier transforms as formats use them: lengths, precision and cost."""

from __future__ import annotations

import contextlib
import functools
import math

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """A stretch of code whose products keep the dtype of their operands."""
    return torch.autocast(x.device.type, enabled=False)


@torch.compiler.assume_constant_result
def fast_length(n: int) -> int:
    """The least even number of at least n whose prime factors are 2, 3 and 5: a length that transforms fast.

    >>> [fast_length(n) for n in (1, 7, 17, 1023, 2049)]
    [2, 8, 18, 1024, 2160]
    """
    return _fast_length(n)


@functools.lru_cache(maxsize=4096)
def _fast_length(n: int) -> int:
    candidate = n + n % 2
    while not _smooth(candidate):
        candidate += 2
    return max(candidate, 2)


def _smooth(n: int) -> bool:
    for p in (2, 3, 5):
        while n and n % p == 0:
            n //= p
    return n in (0, 1)


def transform_operations(n: int) -> int:
    """Operations of one real transform of length n: the usual count of 2.5 n log₂ n."""
    return round(2.5 * n * math.log2(n)) if n > 1 else 0
