"""The preview of ``polyad adapt``: rows of a training as text, what no loss counts dimmed."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from polyad.cli.output import emit, out


def show_preview(model: Any, asked: Any, *, json: bool = False) -> None:
    """Print the first rows that a training of ``model`` would see; nothing is trained."""
    from polyad.adapters.training.batches import Tokens

    tokens = Tokens(model, asked)
    rows = tokens.preview()
    if json:
        emit({"rows": [[{"text": text, "counted": counted} for text, counted in row] for row in rows]})
        return
    masks = any(not counted for row in rows for _, counted in row)
    for number, row in enumerate(rows, 1):
        out.print(Text(f"row {number} of {tokens.length} tokens", "bold"))
        body = Text()
        for text, counted in row:
            if counted or out.is_terminal:
                body.append(text, "" if counted else "dim")
            else:  # a file has no dim letters
                body.append(f"⟦{text}⟧")
        out.print(body, soft_wrap=True)
    how = "dim" if out.is_terminal else "within ⟦ ⟧"
    out.print(f"the loss does not count what is {how}" if masks else "the loss counts every token")
