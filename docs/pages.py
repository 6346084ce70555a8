"""The pages of the methods and the table of all of them, from the catalogue and the kept results.

`make docs` puts the pages into the site (docs/hooks.py) and rewrites the table, docs/methods.md, which is committed;
it changes when a method is added or a new result is kept.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fences import fence

import polyad
from polyad import Card
from polyad.claims import Line, StoredResult, results
from polyad.cli.describe import usage

DOCS = Path(__file__).parent
TABLE = DOCS / "methods.md"
HEAD = """# Methods and claims

Every method with its papers, and the last verdict on what each paper asserts. Written by `make docs`, which also
builds the site, in which each method has a page; `polyad claims` shows the assertions.

| handle | paper | method | verdict | figure |
| --- | --- | --- | --- | --- |
"""
KINDS = {
    "factor": ("Factorisations of weights", "To make a trained model's layers smaller: each weight becomes two thin "
               "matrices, sized by a budget. [A smaller model](../guides/smaller.md) shows how."),
    "group": ("Cutting blocks", "To make a decoder smaller so that its layers stay ordinary ones: whole neurons, "
              "rotation pairs or value columns go. [A smaller model](../guides/smaller.md) shows how."),
    "quantize": ("Quantisation", "To store the numbers of a tensor, or of all layers of a model, in few bits. "
                 "[A smaller model](../guides/smaller.md) shows how."),
    "rescale": ("Rescaling", "Before another step of a recipe, or to take a model's weights off the grid of a file "
                "that they came from."),
    "allocate": ("Allocation of a budget", "To say which layer is cut how far: `polyad compress --allocate NAME`."),
    "adapter": ("Adapters", "To fine-tune a model by a small change of frozen weights. [A fine-tuned model]"
                "(../guides/fine-tuned.md) shows how; [all of them, fine-tuned alike](../adapters-measured.md)."),
    "codec": ("Caches", "To keep the keys and values of long contexts in less memory. [Less cache]"
              "(../guides/cache.md) shows how; [which cache for which budget](../caches.md)."),
    "decompose": ("Decompositions", "To approximate a matrix or a tensor that is all there, or with a mask in part. "
                  "[Tensors](../guides/tensors.md) shows how to choose among them."),
    "complete": ("Completion", "To fill in what was not observed."),
    "layer": ("Layers", "To build a model with attention of another form from the start."),
    "solve": ("Solvers", "To find what meets a condition: a least-squares solution, ranks, a state in time."),
    "sketch": ("Sketches", "To estimate a product from few rows, with a stated error."),
    "stream": ("Streams", "Where data comes piece by piece and is not kept."),
    "operation": ("Operations", "On models and adapters that are there: sums, merges, ensembles, conversions."),
    "transform": ("Optimisers", "To train whole matrices with a smaller optimiser state. [Less memory in training]"
                  "(../guides/training.md) shows how."),
    "subspace": ("Subspaces of gradients", "To train in few directions of a matrix's gradient."),
    "schedule": ("Schedules of training", "To change what is trained, or how, as training goes."),
    "measure": ("Measures", "To learn of data or a model what decides whether a method pays."),
}  # fmt: skip
"""The heading of each kind in the gallery, and when a method of this kind is wanted at all."""


def page(card: Card, kept: Mapping[str, StoredResult], when: str = "", picture: str = "") -> str:
    """One page as Markdown: when to use the method and when not, its papers, what was measured, and code."""
    title, wanted = KINDS.get(card.kind, (card.kind, ""))
    lines = [f"# {card.name}", "", f"*{title}*", "", plain(card.summary), "", "## When to use it", ""]
    lines += [when, ""] if when else []
    lines += [wanted, ""] if wanted else []
    if card.instead:
        lines += ["## What to use instead", "", plain(card.instead), ""]
    lines += [picture, ""] if picture else []
    lines += ["## Code", "", *code(card), "## Papers and claims", ""]
    for paper in card.papers:
        lines += [f"{plain(paper.authors)} ({paper.year}). *{plain(paper.title)}*. {linked(paper.source)}", ""]
        lines += [f"From this paper: {plain(paper.adds)}.", ""] if paper.adds else []
        lines += claim(paper.handle, kept.get(paper.handle)) if paper.handle else []
    if not card.handles:
        lines += [
            "No claim of these papers was put to a test here; what the method computes is held by its contract.",
            "",
        ]
    call = f"{card.function.__name__}{inspect.signature(card.function)}"
    text = fence(inspect.getdoc(card.function) or "")
    lines += ["## In full", "", "```text", call.replace("'", ""), "```", "", text, ""]
    return "\n".join(lines)


def code(card: Card) -> list[str]:
    """How the method is called: its command, and its import in Python."""
    command = usage(card)
    language = "python" if command.startswith("from ") else "text"
    lines = [f"```{language}", command, "```", ""]
    if language == "text":
        package = ".".join(card.module.split(".")[:2])
        lines += ["```python", f"from {package} import {card.function.__name__}", "```", ""]
    return lines


def claim(handle: str, result: StoredResult | None) -> list[str]:
    """What was measured of one paper: each line with its figure and words, and the details folded away."""
    if result is None:
        return [f"Claim `{handle}`: not run yet.", ""]
    lines: list[str] = []
    for line in result.lines:
        lines += [f"**Claim `{handle}`:** {plain(line.assertion)}.", "",
                  f"Measured: {measured(line)}. Verdict: {line.state}.{plain(terms(line))}", ""]  # fmt: skip
    details = json.dumps(result.details, indent=2, ensure_ascii=False)
    shown = "\n".join(f"    {row}" for row in ["```json", *details.splitlines(), "```"])
    return [*lines, '??? note "All that was recorded"', "", shown, ""]


def plain(text: str) -> str:
    """A sentence in which Markdown reads nothing but code: double backticks as single ones, the rest escaped."""
    pieces = text.replace("``", "`").split("`")
    marks = {ord(mark): f"\\{mark}" for mark in "*_[]<"}
    return "`".join(piece if place % 2 else piece.translate(marks) for place, piece in enumerate(pieces))


def linked(source: str) -> str:
    """The source as a link where it has an address."""
    kind, _, name = source.partition(":")
    places = {"doi": "https://doi.org/", "arXiv": "https://arxiv.org/abs/"}
    return f"[{source}]({places[kind]}{name})" if kind in places else source


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


def pages(
    when: Mapping[str, str] | None = None, pictures: Mapping[str, str] | None = None
) -> dict[str, str]:  # fmt: skip
    """The page of every method, by its name."""
    kept = {result.handle: result for result in results()}
    return {
        card.name: page(card, kept, (when or {}).get(card.name, ""), (pictures or {}).get(card.name, ""))
        for card in polyad.methods()
    }


def gallery(cards: Sequence[Card]) -> str:
    """All methods by kind, each with its first sentence and the verdicts on its papers."""
    kept = {result.handle: result.lines for result in results()}
    lines = ["# Methods", "", f"{len(cards)} methods, by what they are for; [the table](../methods.md) has them by "
             "name with every figure. A claim that fails is a result: its page says what to use.", ""]  # fmt: skip
    present = {card.kind for card in cards}
    for kind in [*KINDS, *sorted(present - set(KINDS))]:
        if kind not in present:
            continue
        title, wanted = KINDS.get(kind, (kind, ""))
        lines += [f"## {title}", "", wanted, "", "| method | what it makes | claims |", "| --- | --- | --- |"]
        for card in (card for card in cards if card.kind == kind):
            verdicts = ", ".join(line.verdict for handle in card.handles for line in kept.get(handle, ())) or "–"
            summary = plain(card.summary).replace("|", "\\|")
            lines.append(f"| [{card.name}]({card.name}.md) | {summary} | {verdicts} |")
        lines.append("")
    return "\n".join(lines)


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
    TABLE.write_text(table(), encoding="utf-8")
