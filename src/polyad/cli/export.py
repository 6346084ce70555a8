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
        str | None,
        typer.Option(help="gguf: what holds tensors that are not quantised: Q4_K, or Q4_K,*down_proj=Q6_K by layer"),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="onnx: what the graph computes in, float32 or float16")] = None,
    accuracy_level: Annotated[
        int | None, typer.Option(help="onnx: 1 multiplies codes with rows as they are, 4 with rows of 8 bits")
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(help="onnx: inputs of a module: shapes such as 2x3x224x224, or a .safetensors file")
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="FILE.py:function that makes the module MODEL was before it was compressed")
    ] = None,
    max_file_size: Annotated[
        int | None, typer.Option(help="onnx: bytes above which numbers go into a file beside the graph")
    ] = None,
    max_shard_size: Annotated[int | None, typer.Option(help="transformers: the most bytes in one file")] = None,
    unchecked: Annotated[bool, typer.Option(help="do not run what was written")] = False,
    json: options.Json = False,
) -> None:
    """Write MODEL to OUT for another engine; what is written is run and compared before it is put there."""
    from polyad._model_card import write_export_card
    from polyad.cli.example_inputs import inputs_of, module_of
    from polyad.export import check_options
    from polyad.export import export as write
    from polyad.models.loading import load

    asked: dict[str, Any] = {
        "container": container, "dtype": dtype, "accuracy_level": accuracy_level,
        "inputs": None if inputs is None else inputs_of(inputs), "max_file_size": max_file_size,
        "max_shard_size": max_shard_size, "unchecked": unchecked or None,
    }  # fmt: skip
    asked = {name: value for name, value in asked.items() if value is not None}
    check_options(format, asked)
    with say_warnings():
        source = model if like is None else load(model, like=module_of(like))
        result = write(source, out_path, format, **asked)
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
