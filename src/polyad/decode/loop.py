"""Decoding token by token, as a decoding method that transformers' ``generate`` calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from polyad.cache.host.held_cache import HeldCache
from polyad.decode.clock import Clock
from polyad.decode.outline import NoLoopError
from polyad.decode.steps.decoder import BufferedDecoder

PLAIN_MODES = ("greedy_search", "sample")


def decoding_method(
    decoder: BufferedDecoder,
    clock: Clock,
    streamer: Any,
    generator: torch.Generator | None,
    cache: HeldCache | None = None,
) -> Callable[..., Tensor]:
    """The function to give to ``model.generate(..., custom_generate=)``: it gets the processors of logits and the
    criteria for stopping that the model's generation configuration asks for."""

    def decode(
        model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,  # noqa: ARG001
        **others: Any,
    ) -> Tensor:  # fmt: skip
        if str(generation_config.get_generation_mode().value) not in PLAIN_MODES:
            raise NoLoopError(f"its generation is {generation_config.get_generation_mode().value}")
        mask = others.get("attention_mask")
        pad = generation_config._pad_token_tensor
        sample = bool(generation_config.do_sample)
        clock.start()
        decoder.start(input_ids.shape[0], generation_config.max_length, mask, cache)
        unfinished = torch.ones(input_ids.shape[0], dtype=torch.int64, device=input_ids.device)
        new = input_ids
        while True:
            scores = logits_processor(input_ids, decoder.run(new))
            tokens = _choose(scores, sample, generator)
            if pad is not None:
                tokens = tokens * unfinished + pad * (1 - unfinished)
            input_ids, new = torch.cat((input_ids, tokens[:, None]), 1), tokens[:, None]
            if streamer is not None:
                streamer.put(tokens)
            unfinished = unfinished & ~stopping_criteria(input_ids, None)
            clock.tick()
            if not bool(unfinished.any()):
                break
        if streamer is not None:
            streamer.end()
        return input_ids

    return decode


def _choose(scores: Tensor, sample: bool, generator: torch.Generator | None) -> Tensor:
    if not sample:
        return scores.argmax(-1)
    return torch.multinomial(scores.softmax(-1), 1, generator=generator).squeeze(1)
