"""``polyad inspect``: what a model is made of."""

from __future__ import annotations

from collections import Counter
from typing import Any

from polyad.cli import options
from polyad.cli.output import emit, number, table


def inspect(
    model: options.Model,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Show MODEL's layers by shape and kind, its size, and the blocks that can be cut together."""
    from polyad.evaluation.size import nbytes, operations, parameters
    from polyad.models import blocks, decoder_linears
    from polyad.models.layer_matrices import matrix_shape

    options.fix_seed(seed)
    one = options.load_model(model, dtype, device)
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
            "operations_per_token": operations(one),
            "layers": [{"name": n, "kind": k, "shape": list(s), "count": c} for (n, k, s), c in kinds.items()],
            "blocks": dict(counts),
        })  # fmt: skip
        return
    rows = [[n, k.replace("Parameter", "dense"), " x ".join(map(str, s)), str(c)] for (n, k, s), c in kinds.items()]
    table(f"{model}: {type(one).__name__}, the decoder's linear layers", ["layer", "kind", "shape", "count"], rows)
    table("size", ["", "linear layers", "whole model"], [
        ["parameters", number(count.selected, 0), number(count.total, 0)],
        ["bytes, floats in two", number(size.selected, 0), number(size.total, 0)],
        ["operations a token", "", number(operations(one), 0)],
    ])  # fmt: skip
    if counts:
        table("blocks that can be cut together", ["kind", "count"], [[k, str(c)] for k, c in counts.items()])
