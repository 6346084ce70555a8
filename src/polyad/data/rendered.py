"""Examples as token ids: conversations through the chat template, prompts marked as what no loss counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch

from polyad.data.records import Record, Records
from polyad.data.text import CALIBRATION_SHARE, Split
from polyad.models.special_tokens import Frame

Encode = Callable[[str], Sequence[int]]


def render_records(table: Records, encode: Encode, tokenizer: Any, frame: Frame) -> Split:
    """Tokenise examples and part them between two of them, nearest to 70 % of the tokens.

    Like documents, examples are ordered by the sha256 of their names, and one that occurred before is dropped. A
    prompt is in the token ids and not among what is learned; behind a completion that no template ends stands the
    tokenizer's end token, so that stopping is learned too.
    """
    seen: set[tuple[tuple[int, ...], int]] = set()
    examples: list[tuple[list[int], int]] = []
    for record in sorted(table.records, key=lambda r: hashlib.sha256(r.name.encode()).hexdigest()):
        ids, unlearned = _example(record, encode, tokenizer, frame, table.name)
        if (tuple(ids), unlearned) not in seen:
            seen.add((tuple(ids), unlearned))
            examples.append((ids, unlearned))
    ends = list(accumulate(len(ids) for ids, _ in examples))
    count = _calibration_count(ends)
    border = ends[count - 1] if len(ends) > 1 else int(ends[0] * CALIBRATION_SHARE)
    tokens = torch.tensor([token for ids, _ in examples for token in ids], dtype=torch.int64)
    learned = torch.tensor([i >= unlearned for ids, unlearned in examples for i in range(len(ids))])
    return Split(
        table.name, tokens[:border], tokens[border:], frame,
        learned=(learned[:border], learned[border:]), starts=(0, *ends[: count - 1]),
    )  # fmt: skip


def _calibration_count(ends: list[int]) -> int:
    """The number of examples whose end is nearest to 70 % of the tokens; of several, one is left to evaluate."""
    nearest = min(range(len(ends)), key=lambda i: abs(ends[i] - CALIBRATION_SHARE * ends[-1])) + 1
    return max(1, min(nearest, len(ends) - 1))


def _example(record: Record, encode: Encode, tokenizer: Any, frame: Frame, table: str) -> tuple[list[int], int]:
    """The token ids of one example, and how many of the first no loss counts."""
    if isinstance(record.completion, str):
        prompt = str(record.prompt)
        ids, before = list(encode(prompt + record.completion)), list(encode(prompt)) if prompt else []
        end = getattr(tokenizer, "eos_token_id", None)
        if end is not None and (not ids or ids[-1] != end):
            ids.append(end)
    else:
        messages = [*record.prompt, *record.completion]
        ids = list(encode(_template_text(tokenizer, messages, record, table)))
        prompt_text = _template_text(tokenizer, record.prompt, record, table, reply=True) if record.prompt else ""
        before = list(encode(prompt_text)) if prompt_text else []
    common = next(
        (i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), min(len(ids), len(before))
    )
    first = list(frame.before)
    if first and ids[: len(first)] == first:  # a row has it from the frame
        return ids[len(first) :], max(0, common - len(first))
    return ids, common


def _template_text(
    tokenizer: Any, messages: Sequence[Any], record: Record, table: str, *, reply: bool = False
) -> str:
    """Messages as the tokenizer's chat template writes them, up to where a reply begins with ``reply``."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            f"{table!r} holds conversations, and the model's tokenizer has no chat template to write them as text; "
            "take a model tuned for chat, or give columns prompt and completion of plain text"
        )
    try:
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=reply
        )
    except Exception as error:  # a template raises what it likes, such as a role that it does not know
        raise ValueError(f"the chat template refuses {record.name} ({error}); change or leave out that row") from None
