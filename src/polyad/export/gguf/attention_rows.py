"""The order of the rows and columns of attention in a GGUF file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad.models.attention import ReducedAttention


def attention_rows(attention: Any, role: str, count: int, width: int, pairs: bool) -> Tensor | None:
    """The order of a projection's ``count`` rows in the file, heads of ``width`` each; None where they stay.

    Heads that were cut come back at their full width, with rows of zeros in the places of those that were cut away.
    With ``pairs`` the two numbers of a rotation, which transformers keeps half a head apart, come side by side.
    """
    if role not in ("q_proj", "k_proj", "v_proj"):
        return None
    index, heads = None, count // width
    if isinstance(attention, ReducedAttention):
        heads = attention.heads if role == "q_proj" else attention.key_heads
        index = _rows_of_values(attention) if role == "v_proj" else _rows_of_pairs(attention, heads)
    if not pairs or role == "v_proj":
        return index
    order = pair_rows(heads, width)
    return order if index is None else index[order]


def pair_rows(heads: int, width: int) -> Tensor:
    """The rows of heads whose rotations pair row i with row i + width / 2, with the two of a pair side by side.

    >>> pair_rows(1, 6).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    half = torch.arange(width // 2)
    one = torch.stack((half, half + width // 2), 1).flatten()
    return (torch.arange(heads).unsqueeze(1) * width + one).flatten()


def _rows_of_pairs(attention: ReducedAttention, heads: int) -> Tensor:
    """The rows of the whole heads, of queries or keys that kept some pairs; -1 where a pair was cut."""
    width = attention.head_width
    if attention.pairs is None:
        return torch.arange(heads * width)
    pairs = attention.pairs.cpu().long().repeat_interleave(heads // attention.key_heads, 0)  # (heads, count)
    count = pairs.shape[1]
    index = torch.full((heads, width), -1)
    rows = (torch.arange(heads) * 2 * count).unsqueeze(1) + torch.arange(count)
    index.scatter_(1, pairs, rows)
    index.scatter_(1, pairs + width // 2, rows + count)
    return index.flatten()


def _rows_of_values(attention: ReducedAttention) -> Tensor:
    """The rows of whole values, those that were cut as -1."""
    return _padded_heads(attention.key_heads, attention.value_width, attention.head_width)


def attention_columns(attention: Any, role: str, width: int) -> Tensor | None:
    """The columns of the output projection for values of the full width; None where they stay as they are."""
    if role != "o_proj" or not isinstance(attention, ReducedAttention) or attention.value_width == width:
        return None
    return _padded_heads(attention.heads, attention.value_width, width)


def _padded_heads(heads: int, before: int, width: int) -> Tensor:
    index = torch.full((heads, width), -1)
    index[:, :before] = torch.arange(heads * before).reshape(heads, before)
    return index.flatten()
