"""Builds the pages of the methods, and rewrites the table of all of them, from the catalogue and the kept results.

`make docs` runs it. The pages go to docs/built, which is not committed: a page for every paper that has a handle. The
table, docs/methods.md, is committed; it changes when a method is added or a new result is kept.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

import polyad
from polyad.claims import Line, StoredResult, results

DOCS = Path(__file__).parent
BUILT = DOCS / "built"
TABLE = DOCS / "methods.md"
HEAD = """# Methods

Every method with its papers, and the last verdict on what each paper asserts. Written by `make docs`, which also
builds a page for each paper in `docs/built`; `polyad claims` shows the assertions.

| handle | paper | method | verdict | figure |
| --- | --- | --- | --- | --- |
"""


def page(handle: str, cards: Sequence[polyad.Card], result: StoredResult | None) -> str:
    """One page as Markdown: the paper, the methods that serve it, and what was measured."""
    paper = next(paper for card in cards for paper in card.papers if paper.handle == handle)
    lines = [f"# {handle}", "", f"{paper.authors} ({paper.year}). *{paper.title}*. {paper.source}", ""]
    for card in cards:
        adds = next(paper.adds for paper in card.papers if paper.handle == handle)
        lines += [f"## `{card.module.removeprefix('polyad.')}` · {card.kind}", ""]
        lines += [f"From this paper: {adds}.", ""] if adds else []
        call = f"{card.name}{inspect.signature(card.function)}"
        lines += ["```text", call, "", inspect.getdoc(card.function) or "", "```", ""]
    lines += ["## Claim", ""]
    if result is None:
        return "\n".join([*lines, "Not run yet.", ""])
    for line in result.lines:
        lines += [f"{line.assertion}.", "", f"Measured: {measured(line)}. Verdict: {line.state}.{terms(line)}", ""]
    return "\n".join([*lines, "```json", json.dumps(result.details, indent=2, ensure_ascii=False), "```", ""])


def measured(line: Line) -> str:
    """The figure beside its bound, with its error where that is known and not zero."""
    error = f" ± {line.error:.2g}" if line.error else ""
    return f"{line.figure:.4g}{error} {line.relation} {line.bound:.4g}"


def terms(line: Line) -> str:
    """A sentence for each thing that is known of how a line was measured."""
    counted = (("seed", line.seeds), ("window", line.windows))
    counts = [f"{count} {name}{'s' * (count > 1)}" for name, count in counted if count]
    words = [f"Over {' and '.join(counts)}."] if counts else []
    words += [f"Rival: {line.rival}."] if line.rival else []
    words += [f"Control: {line.control}."] if line.control else []
    words += [f"Measured at commit {line.commit[:10]} in {line.minutes:g} minutes."] if line.commit else []
    return "".join(f" {word}" for word in words)


def pages() -> dict[str, str]:
    """Every page by handle."""
    kept = {result.handle: result for result in results()}
    cards: dict[str, list[polyad.Card]] = {}
    for card in polyad.methods():
        for handle in card.handles:
            cards.setdefault(handle, []).append(card)
    return {handle: page(handle, cards[handle], kept.get(handle)) for handle in sorted(cards)}


def table() -> str:
    """The table: a row for each of a method's papers that has a handle, or for its first where none has."""
    kept = {result.handle: result.lines for result in results()}
    rows: list[str] = []
    for card in polyad.methods():
        for paper in [paper for paper in card.papers if paper.handle] or card.papers[:1]:
            lines = kept.get(paper.handle or "", ())
            verdicts = "; ".join(line.verdict for line in lines) or "–"
            figures = "; ".join(measured(line) for line in lines) or "–"
            source = f"{paper.authors.split(',')[0]} {paper.year}, {paper.source}"
            rows.append(f"| {paper.handle or '–'} | {source} | `{card.name}` | {verdicts} | {figures} |")
    return HEAD + "\n".join([*rows, ""])


if __name__ == "__main__":
    BUILT.mkdir(exist_ok=True)
    for old in BUILT.glob("*.md"):
        old.unlink()
    for name, text in pages().items():
        (BUILT / f"{name}.md").write_text(text, encoding="utf-8")
    TABLE.write_text(table(), encoding="utf-8")
