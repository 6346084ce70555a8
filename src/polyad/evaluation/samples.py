"""Continuations of a text by a model, before and after it was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from polyad.decode import generate
from polyad.evaluation.sample_record import Sample
from polyad.models.source import origin

PROMPT, NEW = 32, 32
"""Tokens of a text that are given, and tokens that continue them."""


def continuations(model: Any, texts: Mapping[str, Tensor]) -> dict[str, str]:
    """The likeliest tokens behind the first of each text's windows (windows, tokens), as text.

    Empty for a model without a tokenizer.
    """
    if origin(model).tokenizer is None:
        return {}
    generations = {
        name: generate(model, windows[0, :PROMPT], max_new_tokens=NEW).text for name, windows in texts.items()
    }
    return {name: text[0] for name, text in generations.items() if text}


def samples(
    tokenizer: Any, texts: Mapping[str, Tensor], original: Mapping[str, str], now: Mapping[str, str]
) -> list[Sample]:
    """The results of ``continuations`` before and after, with the beginnings of the texts."""
    return [
        {
            "text": name,
            "prompt": tokenizer.decode(texts[name][0, :PROMPT].tolist()),
            "original": before,
            "now": now[name],
        }
        for name, before in original.items()
    ]
