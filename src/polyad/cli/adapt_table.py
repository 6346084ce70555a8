"""The table of trained adapters on a terminal, and their figures for a card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polyad.cli.measure_table import measure_table
from polyad.cli.output import number, out, table

if TYPE_CHECKING:
    from polyad.evaluation.trial_records import AdapterRecord, FailedAdapter


def card_rows(record: AdapterRecord) -> list[list[str]]:
    """The figures of one training, its heads first."""
    rows = [["", "before", "after"]]
    for text, measured in record["held_out"].items():
        rows.append([f"held-out loss, {text}, nats a token", f"{measured['before']:.3f}", f"{measured['after']:.3f}"])
    trained = number(record["trained_parameters"], 0)
    return [*rows, ["trained parameters", "", trained], ["steps", "", number(record["steps"], 0)],
            ["learning rate", "", f"{record['learning_rate']:g}"]]  # fmt: skip


def show(records: Sequence[AdapterRecord | FailedAdapter], folder: Path, report: Path | None) -> None:
    """The table of what was trained, methods that failed below it, and where the result and its page are."""
    from polyad.evaluation.trial_records import failed_trial, is_trained

    done = [record for record in records if is_trained(record)]
    rows = []
    for record in done:
        peak = record["peak_memory_bytes"]
        losses = [f"{measured[when]:.3f}" for measured in record["held_out"].values() for when in ("before", "after")]
        rows.append([
            record["spelled"], number(record["trained_parameters"], 0), number(record["bytes"], 0), *losses,
            curve(record["loss_curve"]), f"{record['learning_rate']:g}",
            number(record["seconds"]["training"] / record["steps"], 3), number(peak and peak / 1e6, 0),
        ])  # fmt: skip
    if done:
        texts = [column for text in done[0]["held_out"] for column in (text, "after")]
        columns = ["adapter", "trained", "bytes", *texts, "curve", "rate", "s/step", "MB"]
        table(f"{done[0]['steps']:,} steps; held-out loss in nats a token, before and after", columns, rows)
    for record in records:
        if not is_trained(record):
            out.print(f"{record['spelled']} failed: {failed_trial(record)}")
        elif "measure" in record:
            measure_table(record["measure"], record["spelled"])
    out.print(f"saved to {folder}" + (f", report in {report}" if report else ""))


def curve(losses: list[float], columns: int = 8) -> str:
    """The losses of a training as blocks, each as high as the mean of its part of the steps.

    >>> curve([4.0, 3.0, 2.5, 2.25], columns=4)
    '█▄▂▁'
    """
    columns = min(columns, len(losses))
    parts = [losses[i * len(losses) // columns : (i + 1) * len(losses) // columns] for i in range(columns)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    return "".join("▁▂▃▄▅▆▇█"[int(7 * (m - low) / (high - low)) if high > low else 0] for m in means)


def with_rank(adapter: str, rank: int) -> str:
    """The text of an adapter with the rank of --rank; both are refused."""
    if "rank=" in adapter:
        raise ValueError(f"--adapter {adapter} and --rank {rank} both give a rank; leave one out")
    return f"{adapter}{',' if ':' in adapter else ':'}rank={rank}"
