"""Entries of a batch of tensors."""

from __future__ import annotations

from torch import Tensor


def batch_entries(t: Tensor, index: Tensor) -> Tensor:
    """``t[index]``; of a tensor that is expanded over its first dimension a view."""
    return t[:1].expand(len(index), *t.shape[1:]) if t.stride(0) == 0 else t[index]
