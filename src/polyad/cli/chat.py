"""A conversation with a model on the terminal, its answers shown as they are made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from polyad.cli.output import emit, note

Answer = Callable[[list[int], Callable[[str], object] | None], str]
"""Makes the answer to token ids, and shows pieces of it meanwhile."""


def chat(model: Any, prompt: str | None, answer: Answer, *, json: bool) -> None:
    """Answer a prompt, or line after line of standard input until it ends or a line is empty."""
    tokenizer = chat_tokenizer(model)
    messages: list[dict[str, str]] = []
    show = None if json else _show
    for line in [prompt] if prompt is not None else _lines():
        messages.append({"role": "user", "content": line})
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        messages.append({"role": "assistant", "content": answer(ids, show)})
        if show is not None:
            show("\n")
    if json:
        emit({"messages": messages})


def chat_tokenizer(model: Any) -> Any:
    """The tokenizer of a model, which must have a chat template."""
    from polyad.models import origin

    tokenizer = origin(model).tokenizer
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            f"{origin(model).name} has no chat template, by which a conversation becomes text; leave --chat out, or "
            "take a model tuned for conversations"
        )
    return tokenizer


def _lines() -> Iterator[str]:
    """The lines that are typed or piped in."""
    if sys.stdin.isatty():
        note("type a line and press Enter; an empty line ends the conversation")
    while True:
        if sys.stdin.isatty():
            _show("> ")
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


def _show(piece: str) -> None:
    """Write a piece of an answer at once."""
    sys.stdout.write(piece)
    sys.stdout.flush()
