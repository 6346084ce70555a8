"""``polyad methods`` and ``polyad claims``: what there is, and what was found true of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from polyad.cli import options
from polyad.cli.describe import describe
from polyad.cli.output import emit, err, out, progress, table

if TYPE_CHECKING:
    from polyad.claims import Line


def methods(
    name: Annotated[str | None, typer.Argument(help="the method to describe; without it, all are listed")] = None,
    kind: Annotated[str | None, typer.Option(help="only methods of this kind")] = None,
    device: options.Device = "cpu",  # noqa: ARG001 - every command takes it
    dtype: options.Dtype = "float32",  # noqa: ARG001
    seed: options.Seed = 0,  # noqa: ARG001
    json: options.Json = False,
) -> None:
    """List every method, or describe one: its arguments, its papers and the last results of their claims."""
    import polyad
    from polyad._arguments import SHORT
    from polyad.claims import results

    lines = {result.handle: result.lines for result in results()}
    cards = polyad.methods(kind) if name is None else (polyad.card(SHORT.get(name, name)),)
    if kind is not None and not cards:
        raise ValueError(
            f"no method is of kind {kind!r}; the kinds are {', '.join(sorted({c.kind for c in polyad.methods()}))}"
        )
    if json:
        emit([{
            "name": card.name, "kind": card.kind, "module": card.module, "summary": card.summary,
            "instead": card.instead, "handles": list(card.handles), "papers": [vars(paper) for paper in card.papers],
            "claims": [asdict(line) for handle in card.handles for line in lines.get(handle, ())],
        } for card in cards])  # fmt: skip
        return
    if name is not None:
        describe(cards[0], lines)
        return
    rows = []
    for card in cards:
        states = ", ".join(line.state for handle in card.handles for line in lines.get(handle, ())) or "–"
        first = card.papers[0]
        rows.append([card.name, card.kind, f"{first.authors.split(',')[0]} {first.year}", states, card.summary])
    table(f"{len(rows)} methods", ["name", "kind", "paper", "claim", "what it does"], rows)


def claims(
    handle: Annotated[str | None, typer.Argument(help="the claim to run; without it, the results so far")] = None,
    every: Annotated[bool, typer.Option("--all", help="run every claim")] = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="run those whose code has changed since, or that have no result")
    ] = False,
    stale: Annotated[bool, typer.Option("--stale", hidden=True)] = False,
    device: options.Device = "cpu",  # noqa: ARG001
    dtype: options.Dtype = "float32",  # noqa: ARG001
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Show what each paper asserts and whether it was found to hold here; run one or all again."""
    from polyad.claims import handles, results, run, unreadable_results

    if stale:
        err.print("--stale is now called --changed")
    changed = changed or stale
    if (handle is not None) + every + changed > 1:
        raise ValueError("name one claim, or give --all or --changed, not several of these")
    wanted = handles() if every else [handle] if handle else _changed_handles() if changed else []
    options.fix_seed(seed)
    with progress() as callback:
        for name in wanted:
            err.print(f"{name}: {run(name, confirm=changed, callback=callback).because}")
    lines = [line for result in results() if handle in (None, result.handle) for line in result.lines]
    for reason in unreadable_results().values():
        err.print(reason)
    if json:
        emit([asdict(line) for line in lines])
    else:
        _show_lines(lines, every_claim=handle is None)


def _changed_handles() -> list[str]:
    """The claims whose code has changed since they were measured, and those without a result that can be read."""
    from polyad.claims import handles, results

    same = {result.handle for result in results() if not result.changed}
    return [name for name in handles() if name not in same]


def _show_lines(lines: list[Line], *, every_claim: bool) -> None:
    """A table with a row for each line, and what to do about claims that are missing or of other code."""
    from polyad.claims import handles, unreadable_results

    rows = [
        [line.handle, line.state, f"{line.figure:.4g} {line.relation} {line.bound:.4g}", line.assertion]
        for line in lines
    ]
    table("claims", ["handle", "state", "measured", "what the paper asserts"], rows)
    missing = sorted(set(handles()) - {line.handle for line in lines} - set(unreadable_results()))
    if missing and every_claim:
        out.print(f"never run here: {', '.join(missing)}")
    if any(line.changed_since for line in lines):
        out.print(
            "code changed since: the claim or its method is defined otherwise now than when it was measured; "
            "`polyad claims --changed` runs such claims again"
        )
