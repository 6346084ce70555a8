"""A sentence on the layers that take longer than those they replace."""

from __future__ import annotations

from collections import defaultdict

from polyad.evaluation.records import CompressionRecord

SLOWER = 1.05
"""The share of the old time above which a layer counts as slower; less is within the noise."""
NAMED = 4  # groups of layers that the sentence names


def slow_layers(record: CompressionRecord) -> str | None:
    """A sentence on the layers of a result that are slower than the original's; None where speed was not measured.

    >>> slow_layers({"layers": [{"path": "a.up", "kind": "LowRank", "shape": [4, 4], "time": {"1": 1.5, "64": 1.2}}]})
    '1 of 1 layers take longer than those that they replace: up, LowRank of 4 x 4 (1, up to 1.50 times with 1 row).'
    >>> timed = {"path": "up", "kind": "Quantized", "shape": [4, 4], "time": {"1": 0.5, "64": 2}}
    >>> slow_layers({"layers": [timed]}).partition("times ")[2]
    'with 64 rows); with 1 row none does.'
    >>> slow_layers({"layers": [{"path": "a.up", "kind": "LowRank", "shape": [4, 4], "time": {"1": 0.5}}]})
    'None of the 1 layers takes longer than the one that it replaces.'
    """
    timed = [(layer, time) for layer in record.get("layers") or [] if (time := layer.get("time"))]
    if not timed:
        return None
    groups: dict[tuple[str, str, str], list[tuple[float, str]]] = defaultdict(list)
    slowest: dict[str, float] = defaultdict(float)
    for layer, time in timed:
        slowest |= {rows: max(float(value), slowest[rows]) for rows, value in time.items()}
        worst, rows = max((float(value), rows) for rows, value in time.items())
        if worst > SLOWER:
            shape = " x ".join(map(str, layer["shape"]))
            groups[str(layer["path"]).rsplit(".", 1)[-1], str(layer["kind"]), shape].append((worst, rows))
    if not groups:
        return f"None of the {len(timed)} layers takes longer than the one that it replaces."
    phrases: list[str] = []
    for (name, kind, shape), times in sorted(groups.items(), key=lambda item: -max(item[1])[0]):
        worst, rows = max(times)
        phrases.append(f"{name}, {kind} of {shape} ({len(times)}, up to {worst:.2f} times with {_rows(rows)})")
    more = f"; and {len(phrases) - NAMED} more kinds" if len(phrases) > NAMED else ""
    count, named = sum(map(len, groups.values())), "; ".join(phrases[:NAMED])
    none = "".join(f"; with {_rows(rows)} none does" for rows, worst in slowest.items() if worst <= SLOWER)
    return f"{count} of {len(timed)} layers take longer than those that they replace: {named}{more}{none}."


def _rows(rows: str) -> str:
    return f"{rows} row" if rows == "1" else f"{rows} rows"
