"""Tokens and words that end a text, and the pieces in which it is streamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import StopStringCriteria, TextStreamer

from polyad.models.loading import origin

Stop = str | int | Sequence[str] | Sequence[int]


def stop_settings(model: Any, stop: Stop | None) -> tuple[dict[str, Any], list[Any]]:
    """The settings of transformers, and the criteria, that end a text: at the stop tokens of tokenizer, configuration
    and generation configuration, at those of ``stop``, and behind its words."""
    if not isinstance(stop, str | int | Sequence | None):
        raise TypeError(f"stop is a {type(stop).__name__}; give words or token ids, one or several")
    parts = [] if stop is None else [stop] if isinstance(stop, str | int) else list(stop)
    words = [part for part in parts if isinstance(part, str)]
    tokens = [part for part in parts if isinstance(part, int) and not isinstance(part, bool)]
    if len(words) + len(tokens) != len(parts) or "" in words:
        raise ValueError(f"stop={stop!r} holds something else than words and token ids; give one or several of them")
    ends = sorted({*tokens, *_end_tokens(model)})
    settings: dict[str, Any] = {"eos_token_id": ends} if ends else {}
    if words:
        tokenizer = origin(model).tokenizer
        if tokenizer is None:
            raise ValueError(f"stop={stop!r} names words, and {origin(model).name} has no tokenizer; give token ids")
        return settings, [StopStringCriteria(tokenizer, words)]
    return settings, []


def _end_tokens(model: Any) -> set[int]:
    tokenizer, config = origin(model).tokenizer, model.config.get_text_config(decoder=True)
    ends: set[int] = set()
    for source in (tokenizer, config, model.generation_config):
        stated = getattr(source, "eos_token_id", None)
        ends |= set(stated if isinstance(stated, list | tuple) else [] if stated is None else [stated])
    return {end for end in ends if isinstance(end, int) and end >= 0}


class Pieces(TextStreamer):
    """Hands the text of new tokens to a function, word by word."""

    def __init__(self, tokenizer: Any, write: Callable[[str], Any]) -> None:
        super().__init__(tokenizer, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
        if text:
            self._write(text)


def streamer_of(model: Any, write: Callable[[str], Any] | None, batch: int) -> Pieces | None:
    """The streamer for a function; refused for a batch and for a model without a tokenizer."""
    if write is None:
        return None
    if not callable(write):
        raise TypeError(f"stream is a {type(write).__name__}; give a function that takes a piece of text")
    tokenizer = origin(model).tokenizer
    if batch != 1 or tokenizer is None:
        why = f"the batch has {batch} prompts" if batch != 1 else f"{origin(model).name} has no tokenizer"
        raise ValueError(f"stream= shows one text as it is made, and {why}; leave stream out")
    return Pieces(tokenizer, write)
