"""``polyad report``: the page of a result, from what a command printed with --json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from polyad.cli.output import out

REMEDY = "give what polyad compress, compare, adapt or cache printed with --json"


def report(
    file: Annotated[Path, typer.Argument(help="what a command printed with --json")],
    page: Annotated[Path, typer.Argument(metavar="OUT", help="an HTML file to write")],
) -> None:
    """Write the page of results that polyad compress, compare, adapt or cache printed with --json to FILE."""
    from polyad._stated import read_stated
    from polyad.report import check

    value = read_stated(file, Any, REMEDY)
    check(page)
    write_value(page, value, file)
    out.print(f"report in {page}")


def write_value(page: Path, value: Any, file: Path) -> None:
    """Write the page of a value, which tells by its keys what command it is of."""
    from polyad._stated import check_stated
    from polyad.evaluation.trial_records import AdapterRecord, CacheRecord, FailedAdapter
    from polyad.report import write, write_study
    from polyad.report.studies import adapter_study, cache_study

    records = value if isinstance(value, list) else [value]
    if not records or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{file} holds no result; {REMEDY}")
    if "caches" in records[0]:
        caches = check_stated(records[0]["caches"], list[CacheRecord], file, REMEDY)
        write_study(page, cache_study(caches, records[0].get("recommended"), records[0].get("facts") or {}))
    elif "spelled" in records[0]:
        trained = [
            check_stated(record, FailedAdapter if record.get("error") else AdapterRecord, file, REMEDY)
            for record in records
        ]
        write_study(page, adapter_study(trained, {"Model": next((r["model"] for r in trained if "model" in r), "–")}))
    elif any(key in record for record in records for key in ("plan", "error")):
        write(page, records)
    else:
        raise ValueError(f"{file} holds no result that has a page; {REMEDY}")
