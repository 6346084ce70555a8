"""``polyad export``: write a model for another engine, and check it there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from polyad.cli import options
from polyad.cli.output import command, emit, out, say_warnings


def export(
    model: options.Model,
    out_path: Annotated[Path, typer.Argument(metavar="OUT", help="a file for gguf, a folder to make otherwise")],
    format: Annotated[str, typer.Option(help="gguf, onnx or transformers")],
    container: Annotated[
        str | None, typer.Option(help="gguf: what holds the tensors that are not quantised, such as Q8_0 or F16")
    ] = None,
    unchecked: Annotated[bool, typer.Option(help="do not run what was written")] = False,
    json: options.Json = False,
) -> None:
    """Write MODEL to OUT for another engine; what is written is run and compared before it is put there."""
    from polyad._model_card import write_export_card
    from polyad.export import export as write

    asked: dict[str, Any] = {"container": container, "unchecked": unchecked or None}
    with say_warnings():
        result = write(model, out_path, format, **{name: v for name, v in asked.items() if v is not None})
    if result.path.is_dir():
        path = Path(model).expanduser()
        beside = path if path.is_dir() else None
        write_export_card(result.path, model, beside, format, result.checked, command())
    if json:
        emit({"command": command(), "model": model, **result.to_json()})
        return
    for note in result.notes:
        out.print(note, soft_wrap=True)
    for name, value in result.checked.items():
        out.print(f"{name.replace('_', ' ')}: {value}", soft_wrap=True)
    size = f"{result.nbytes / 1e6:,.1f} MB"
    out.print(f"wrote {result.path}, {size}" + "".join(f", and {path}" for path in result.more), soft_wrap=True)
