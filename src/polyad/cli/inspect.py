"""``polyad inspect``: what a model is made of."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Annotated, Any

import typer

from polyad.cli import options
from polyad.cli.output import emit, number, table


def inspect(
    model: options.Model,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="which products serve few rows and many, measured")
    ] = False,
) -> None:
    """Show MODEL's layers by shape and kind, its size, and the blocks that can be cut together."""
    from polyad.evaluation.size import nbytes, operations_per_token, parameters
    from polyad.models import blocks, decoder_linears
    from polyad.models.layer_matrices import matrix_shape

    options.fix_seed(seed)
    one = options.load_model(model, dtype, device)
    if kernels:
        _show_kernels(model, one, json)
        return
    chosen = list(decoder_linears(one))
    kinds: Counter[tuple[str, str, tuple[int, ...]]] = Counter()
    for path in chosen:
        layer: Any = one.get_submodule(path)
        kinds[path.rsplit(".", 1)[-1], type(layer.weight).__name__, matrix_shape(layer)] += 1
    try:
        counts = Counter(block.kind for block in blocks(one))
    except ValueError:
        counts = Counter()
    count, size = parameters(one, chosen), nbytes(one, chosen, width=2)
    if json:
        emit({
            "model": model, "architecture": type(one).__name__,
            "parameters": {"selected": count.selected, "total": count.total},
            "bytes": {"selected": size.selected, "total": size.total},
            "operations_per_token": operations_per_token(one),
            "layers": [{"name": n, "kind": k, "shape": list(s), "count": c} for (n, k, s), c in kinds.items()],
            "blocks": dict(counts),
        })  # fmt: skip
        return
    rows = [[n, k.replace("Parameter", "dense"), " x ".join(map(str, s)), str(c)] for (n, k, s), c in kinds.items()]
    table(f"{model}: {type(one).__name__}, the decoder's linear layers", ["layer", "kind", "shape", "count"], rows)
    table("size", ["", "linear layers", "whole model"], [
        ["parameters", number(count.selected, 0), number(count.total, 0)],
        ["bytes, floats in two", number(size.selected, 0), number(size.total, 0)],
        ["operations a token", "", number(operations_per_token(one), 0)],
    ])  # fmt: skip
    if counts:
        table("blocks that can be cut together", ["kind", "count"], [[k, str(c)] for k, c in counts.items()])


def _show_kernels(name: str, model: Any, json: bool) -> None:
    """Print which products serve the compressed layers of a model, with microseconds of one row."""
    from polyad.layers.kernels import kernel_rows

    rows = kernel_rows(model)
    if json:
        layers = [{**dataclasses.asdict(row), **(row.choice or {})} for row in rows]
        emit({"model": name, "kernels": [{k: v for k, v in one.items() if k != "choice"} for one in layers]})
        return
    if not rows:
        typer.echo(f"{name} has no layers of codes; torch's own products serve it")
        return
    table(
        f"{name}: products of its compressed layers, microseconds of one row",
        ["layer", "matrix", "count", "few rows", "many rows", "packed", "restored", "dense"],
        [[r.layer, r.matrix, str(r.count), r.few, r.many, *_microseconds(r.choice)] for r in rows],
    )


def _microseconds(choice: Any) -> list[str]:
    return ["", "", ""] if choice is None else [number(choice[key], 0) for key in ("packed", "restored", "dense")]
