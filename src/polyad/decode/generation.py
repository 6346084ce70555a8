"""The result of generating."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Generation:
    """Tokens that continue prompts, and how they were made.

    ``tokens`` (batch, new) are the new ones, padded behind a stop token; ``sequences`` (batch, prompt + new) those of
    the prompts too. ``text`` is what the new ones say, prompt by prompt, where the model has a tokenizer. ``loop`` is
    ``polyad`` or ``transformers``, and ``reason`` says why it is the latter. Times leave out the loading and the
    preparation of the loop, and ``milliseconds_per_token``, a median, the prefill too; it is None of a single token.
    ``cache_bytes`` counts keys and values, and is None where transformers' own cache held them.
    """

    tokens: Tensor
    sequences: Tensor
    text: tuple[str, ...] | None
    loop: str
    reason: str | None
    dtype: torch.dtype
    threads: int
    milliseconds_per_token: float | None
    prefill_tokens_per_second: float
    seconds: float
    cache_bytes: int | None
