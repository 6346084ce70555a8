"""Prompts: texts or token ids, one or a batch, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from polyad.models.source import origin
from polyad.models.special_tokens import encoder, frame

Prompt = str | Sequence[str] | Sequence[int] | Tensor


def read_prompt(model: Any, prompt: Prompt, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Token ids (batch, tokens) and what of them is no padding, (batch, tokens) of ones and zeros."""
    if isinstance(prompt, str):
        prompt = [prompt]
    if isinstance(prompt, Tensor):
        ids = prompt if prompt.ndim == 2 else prompt[None]
        if ids.ndim != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(
                f"prompt is a tensor of shape {tuple(prompt.shape)} and {prompt.dtype}; give integers (tokens,) or "
                "(batch, tokens)"
            )
    elif prompt and all(isinstance(part, str) for part in prompt):
        if mask is not None:
            raise ValueError("attention_mask goes with token ids; texts are padded here")
        ids, mask = _encode(model, [str(part) for part in prompt])
    elif all(isinstance(part, int) and not isinstance(part, bool) for part in prompt):
        ids = torch.tensor([list(prompt)], dtype=torch.int64)
    else:
        raise TypeError(f"prompt is a {type(prompt).__name__} of neither texts nor token ids; give one of them")
    if not ids.numel():
        raise ValueError("the prompt is empty; give some words to continue")
    mask = torch.ones_like(ids) if mask is None else mask
    _check(model, ids, mask)
    return ids.to(model.device, torch.int64), mask.to(model.device, torch.int64)


def _encode(model: Any, texts: list[str]) -> tuple[Tensor, Tensor]:
    encode, around = encoder(model), frame(model)
    rows = [encode(text) for text in texts]
    if not all(rows):
        raise ValueError("the prompt is empty; give some words to continue")
    rows = [around.enclose(torch.tensor(row)) for row in rows]
    longest = max(len(row) for row in rows)
    pad = getattr(origin(model).tokenizer, "pad_token_id", None) or 0
    padded = [torch.cat((row.new_full((longest - len(row),), pad), row)) for row in rows]
    masks = [torch.cat((row.new_zeros(longest - len(row)), torch.ones_like(row))) for row in rows]
    return torch.stack(padded), torch.stack(masks)


def _check(model: Any, ids: Tensor, mask: Tensor) -> None:
    if mask.shape != ids.shape:
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)} and the prompt {tuple(ids.shape)}")
    if not bool((mask[:, 1:] >= mask[:, :-1]).all()) or not bool(mask[:, -1].all()):
        raise ValueError("attention_mask has zeros behind ones; pad prompts on the left")
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if int(ids.min()) < 0 or (rows is not None and int(ids.max()) >= rows):
        raise ValueError(f"the prompt has token ids from {int(ids.min())} to {int(ids.max())}; the model has {rows}")
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    length = int(mask.sum(-1).max())
    if isinstance(limit, int) and 0 < limit < length:
        raise ValueError(f"the prompt has {length} tokens and the model {limit} positions; shorten the prompt")
