"""Token ids of a text for a model, and those that its tokenizer puts around one: a start token, or a whole frame."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyad.models.source import origin

PROBES = ("The end.", "a", "0", "一")
"""Texts that are tokenised with and without special tokens; the first that is of any tokens counts."""


@dataclass(frozen=True)
class Frame:
    """Token ids before and after the text in every row that a model reads; ``len`` counts both.

    >>> Frame((1,), (2, 3)).enclose(torch.tensor([[7, 8], [9, 4]])).tolist()
    [[1, 7, 8, 2, 3], [1, 9, 4, 2, 3]]
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def enclose(self, ids: Tensor) -> Tensor:
        """Rows of text (*batch, n) with the frame around each; (*batch, n + len)."""
        if not len(self):
            return ids
        sides = (ids.new_tensor(side).expand(*ids.shape[:-1], -1) for side in (self.before, self.after))
        before, after = sides
        return torch.cat([before, ids, after], -1)

    def room(self, length: int) -> int:
        """Tokens of text in a row of ``length``; a row that the frame fills is refused."""
        if length <= len(self):
            raise ValueError(
                f"length={length} leaves no room for text beside the {len(self)} tokens that the tokenizer puts "
                f"around it; give a length of at least {len(self) + 1}"
            )
        return length - len(self)

    def first_scored(self, rows: Tensor) -> int:
        """The number of the first token of each row (*batch, length) that is scored.

        Nothing predicts the first token, and none that the tokenizer put before the text is part of it.
        """
        return max(1, len(self.before)) if self.starts(rows) else 1

    def starts(self, rows: Tensor) -> bool:
        """Tell whether each row (*batch, length) begins with what stands before a text."""
        count = len(self.before)
        return rows.shape[-1] >= count and bool((rows[..., :count] == rows.new_tensor(self.before)).all())

    def strip(self, rows: Tensor) -> Tensor:
        """The text of rows (*batch, length) that ``enclose`` made; (*batch, length - len)."""
        return rows[..., len(self.before) : rows.shape[-1] - len(self.after)]


BARE = Frame()
"""Text as it is, with nothing around it."""


def frame(model: Any) -> Frame:
    """The frame of what this model reads: for a decoder what comes first alone, since a text goes on behind it."""
    whole = tokenizer_frame(origin(model).tokenizer)
    generates = getattr(model, "can_generate", lambda: False)()
    return Frame(whole.before) if generates and not _encodes(model) else whole


def tokenizer_frame(tokenizer: Any) -> Frame:
    """The special tokens that a tokenizer puts around any text: what differs from encoding it without them."""
    if tokenizer is None:
        return BARE
    for text in PROBES:
        bare = list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
        whole = list(tokenizer(text, verbose=False).input_ids)
        for start in range(len(whole) - len(bare) + 1) if bare else ():
            if whole[start : start + len(bare)] == bare:
                return Frame(tuple(whole[:start]), tuple(whole[start + len(bare) :]))
    return BARE


def _encodes(model: Any) -> bool:
    """Tell whether text goes to an encoder, and another text comes out."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def encoder(model: nn.Module) -> Callable[[str], list[int]]:
    """The function from text to this model's token ids, without special tokens."""
    tokenizer = origin(model).tokenizer
    if tokenizer is None:
        raise ValueError(
            f"{origin(model).name} has no tokenizer, so text cannot be read for it; "
            "load it with polyad.load from a folder that holds one"
        )
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def identity(model: nn.Module) -> str:
    """The sha256 of the vocabulary, merges and rules of this model's tokenizer, which tells it from others."""
    tokenizer = origin(model).tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()
