"""``polyad methods`` and ``polyad claims``: what there is, and what was found true of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from polyad.cli import options
from polyad.cli.output import emit, out, progress, table


def methods(
    kind: Annotated[str | None, typer.Option(help="only methods of this kind")] = None,
    device: options.Device = "cpu",  # noqa: ARG001 - every command takes it
    dtype: options.Dtype = "float32",  # noqa: ARG001
    seed: options.Seed = 0,  # noqa: ARG001
    json: options.Json = False,
) -> None:
    """List every method with its papers and the last results of their claims."""
    import polyad
    from polyad.claims import results

    known = {result["handle"]: result for result in results()}
    cards = polyad.methods(kind)
    if kind is not None and not cards:
        raise ValueError(
            f"no method is of kind {kind!r}; the kinds are {', '.join(sorted({c.kind for c in polyad.methods()}))}"
        )
    if json:
        emit([{
            "name": card.name, "kind": card.kind, "module": card.module, "summary": card.summary,
            "handles": list(card.handles), "papers": [vars(paper) for paper in card.papers],
            "claims": [known[h] for h in card.handles if h in known],
        } for card in cards])  # fmt: skip
        return
    rows = []
    for card in cards:
        states = [known[h]["state"] for h in card.handles if h in known]
        first = card.papers[0]
        rows.append(
            [
                card.name,
                card.kind,
                f"{first.authors.split(',')[0]} {first.year}",
                ", ".join(states) or "–",
                card.summary,
            ]
        )
    table(f"{len(rows)} methods", ["name", "kind", "paper", "claim", "what it does"], rows)


def claims(
    handle: Annotated[str | None, typer.Argument(help="the claim to run; without it, the results so far")] = None,
    every: Annotated[bool, typer.Option("--all", help="run every claim")] = False,
    stale: Annotated[bool, typer.Option(help="run those whose code has changed, or that were never run")] = False,
    device: options.Device = "cpu",  # noqa: ARG001
    dtype: options.Dtype = "float32",  # noqa: ARG001
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Show what each paper asserts and whether it was found to hold here; run one or all again."""
    from polyad.claims import handles, results, run

    if (handle is not None) + every + stale > 1:
        raise ValueError("name one claim, or give --all or --stale, not several of these")
    wanted = handles() if every else [handle] if handle else []
    if stale:
        fresh = {r["handle"] for r in results() if r["state"] != "stale"}
        wanted = [name for name in handles() if name not in fresh]
    options.seeded(seed)
    with progress() as callback:
        for name in wanted:
            run(name, callback=callback)
    found = [r for r in results() if handle is None or r["handle"] == handle]
    if json:
        emit(found)
        return
    rows = [[r["handle"], r["state"], _figure(r), r["statement"]] for r in found]
    table("claims", ["handle", "state", "measured", "what the paper asserts"], rows)
    missing = sorted(set(handles()) - {r["handle"] for r in results()})
    if missing and handle is None:
        out.print(f"never run here: {', '.join(missing)}")
    if any(r["state"] == "stale" for r in found):
        out.print("stale: the code has changed since; `polyad claims --stale` runs them again")


def _figure(result: dict[str, Any]) -> str:
    return f"{result['measured']:.4g} {result['relation']} {result['bound']:.4g}"
