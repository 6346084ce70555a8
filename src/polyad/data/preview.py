"""Rows of token ids as a person reads them: text in pieces, each counted by the loss or only read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from torch import Tensor

Piece = tuple[str, bool]
"""Characters, and whether a loss counts them."""


def marked_pieces(tokenizer: Any, ids: Tensor, counted: Tensor | None) -> list[Piece]:
    """The text of one row of token ids (length,), parted where ``counted`` (length,) changes; special tokens too."""
    marks: Sequence[bool] = [True] * len(ids) if counted is None else counted.tolist()
    runs = groupby(zip(ids.tolist(), marks, strict=True), key=lambda pair: pair[1])
    return [
        (tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False), mark)
        for mark, run in runs
    ]
