"""The check of a model's loop against its own forward pass."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from polyad.decode.outline import NoLoopError
from polyad.decode.steps.decoder import BufferedDecoder
from polyad.decode.structure.nearness import distance
from polyad.decode.structure.trace import random_ids

PROMPT, STEPS, PADDING = 9, 4, 3
TOLERANCES = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.2}
"""Relative distances of logits from their mean; bfloat16 rounds SmolLM2's by 0.05, and a part left out makes 1."""


def check_decoder(decoder: BufferedDecoder, model: Any) -> None:
    """Hold a batch padded on the left to the model's own forward pass: a prompt, and tokens one by one after it.

    Logits must be near those of the model, and the likeliest tokens the same wherever the model prefers one by more
    than the logits differ.
    """
    ids = random_ids(2, PROMPT + STEPS, model.config.get_text_config(decoder=True).vocab_size).to(model.device)
    mask = torch.ones_like(ids)
    mask[1, :PADDING] = 0
    expected = _of_model(model, ids, mask)
    with torch.inference_mode():
        decoder.start(2, PROMPT + STEPS, mask[:, :PROMPT])
        rows = [decoder.run(ids[:, :PROMPT])]
        rows += [decoder.run(ids[:, i : i + 1]) for i in range(PROMPT, PROMPT + STEPS)]
    logits = torch.stack(rows, 1)  # (2, STEPS + 1, vocabulary)
    tolerance = max(TOLERANCES[decoder.dtype], TOLERANCES[model.dtype])
    apart = distance(_centre(logits), _centre(expected))
    if not apart <= tolerance:
        raise NoLoopError(f"its loop makes logits that are {apart:.2g} from those of its forward pass")
    best = expected.topk(2).values
    differs = logits.argmax(-1) != expected.argmax(-1)
    clear = best[..., 0] - best[..., 1] > 2 * (logits - expected).abs().amax(-1)
    if bool((differs & clear).any()):
        raise NoLoopError("its loop chooses other tokens than its forward pass")


def _of_model(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """The model's own logits (batch, STEPS + 1, vocabulary) after the prompt's last token and each one after it."""
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters  # as transformers asks too
    more = {"position_ids": (mask.cumsum(-1) - 1).clamp_min(0)} if takes_positions else {}
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **more).logits
    return logits[:, PROMPT - 1 :].float()


def _centre(logits: Tensor) -> Tensor:
    return logits - logits.mean(-1, keepdim=True)
