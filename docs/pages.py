"""Writes docs/methods: a page for every paper's handle, from the catalogue and the kept results of claims.

Run it with `make docs` after a method, a card or a result has changed.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import polyad
from polyad.claims import results

FOLDER = Path(__file__).parent / "methods"


def page(handle: str, cards: list[polyad.Card], result: dict[str, Any] | None) -> str:
    """One page as Markdown: the paper, the methods that serve it, and what was found."""
    paper = next(p for card in cards for p in card.papers if p.handle == handle)
    lines = [f"# {handle}", "", f"{paper.authors} ({paper.year}). *{paper.title}*. {paper.source}", ""]
    for card in cards:
        adds = next(p.adds for p in card.papers if p.handle == handle)
        lines += [f"## `{card.module.removeprefix('polyad.')}` · {card.kind}", ""]
        lines += [f"From this paper: {adds}.", ""] if adds else []
        lines += [
            "```text",
            f"{card.name}{inspect.signature(card.function)}",
            "",
            inspect.getdoc(card.function) or "",
            "```",
            "",
        ]
    lines += ["## Claim", ""]
    if result is None:
        return "\n".join([*lines, "Not run yet.", ""])
    figure = f"{result['measured']:.4g} {result['relation']} {result['bound']:.4g}"
    lines += [
        f"{result['statement']}.",
        "",
        f"Measured: {figure}. It {'holds' if result['holds'] else 'does not hold'} here."
        + (f" Stale: {result['because']}." if result["because"] else ""),
        "",
    ]
    details = json.dumps(result["details"], indent=2, ensure_ascii=False)
    lines += ["```json", details, "```", ""]
    lines += [
        f"Seed {result['seed']}, {result['seconds']:.0f} seconds, "
        + ", ".join(f"{k} {v}" for k, v in result["versions"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """Every page by handle, and the index."""
    kept = {result["handle"]: result for result in results()}
    by_handle: dict[str, list[polyad.Card]] = {}
    for card in polyad.methods():
        for handle in card.handles:
            by_handle.setdefault(handle, []).append(card)
    found = {handle: page(handle, cards, kept.get(handle)) for handle, cards in sorted(by_handle.items())}
    index = ["# Methods", "", "| method | kind | papers | claim |", "| --- | --- | --- | --- |"]
    for card in polyad.methods():
        links = ", ".join(
            f"[{p.handle}]({p.handle}.md)" if p.handle else f"{p.authors.split(',')[0]} {p.year}" for p in card.papers
        )
        states = ", ".join(kept[h]["state"] for h in card.handles if h in kept) or "–"
        index.append(f"| `{card.name}` | {card.kind} | {links} | {states} |")
    return {**found, "README": "\n".join([*index, ""])}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
