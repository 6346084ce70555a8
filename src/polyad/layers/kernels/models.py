"""All layers of a model that hold formats, given the kernels that are fast for them here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from polyad.formats import Format, Product, Quantized, Sum, Superblocks
from polyad.layers.factors import Factors
from polyad.layers.kernels.choice import CHOICES, Choice, name_of
from polyad.layers.kernels.pack import check_kernels, serves
from polyad.layers.kernels.prepared import DTYPES, Wish, fitting_kernels, kernels_by_speed


@dataclass(frozen=True)
class Row:
    """One kind of matrix in a model: its layer's name, what it is, how often, and what serves few rows and many.

    ``choice`` is what was measured, in microseconds of one row; None where nothing fits and the plain product serves.
    """

    layer: str
    matrix: str
    count: int
    few: str
    many: str
    choice: Choice | None


def prepare_layers(model: nn.Module, kernels: str = "auto") -> nn.Module:
    """Let every layer of a format multiply by fast kernels from the next few rows on; the model is given back.

    ``kernels`` is ``auto``, by a measurement that is kept in the user's cache folder, ``plain``, or the name of the
    one that is to be used wherever it fits. Layers pack their codes when they first meet few rows without gradients
    in eval mode, and have them back as soon as they are read, saved, cast or trained.
    """
    check_kernels(kernels)
    weights = linear_weights(model)
    for weight in weights.values():
        weight.unprepare()
        weight.wish = Wish(kernels) if kernels != "plain" and serves(kernels, weight.device) else None
    if kernels == "auto":
        matrices = Counter[str]()
        sources: dict[str, tuple[Quantized, str, torch.dtype]] = {}
        for path, weight in weights.items():
            for source in quantised_parts(weight()):
                dtype = compute_dtype(model, path)
                for kernel in fitting_kernels(source, weight.looked_up) if dtype in DTYPES else []:
                    name = name_of(source, kernel, dtype)
                    sources[name] = (source, kernel, dtype)
                    matrices[name] += source.parameters
        for name, _ in matrices.most_common():
            CHOICES.of(*sources[name])
        CHOICES.write()
    return model


def linear_weights(model: nn.Module) -> dict[str, Factors]:
    """The formats that linear layers multiply with, each once, by the path of the first layer that does."""
    from polyad.layers.linear import Linear

    weights: dict[int, tuple[str, Factors]] = {}
    for path, module in model.named_modules():
        if isinstance(module, Linear):
            weights.setdefault(id(module.weight), (path, module.weight))
    return dict(weights.values())


def quantised_parts(weight: Format) -> list[Quantized]:
    """The quantised matrices that a format is made of."""
    if isinstance(weight, Superblocks):
        return [weight.to_quantized()]
    if isinstance(weight, Quantized):
        return [weight]
    parts = weight.terms if isinstance(weight, Sum) else weight.factors if isinstance(weight, Product) else ()
    return [one for part in parts for one in quantised_parts(part)]


def kernel_of(source: Quantized, kernels: str, dtype: torch.dtype, looked_up: bool) -> str | None:
    """The kernel that a quantised matrix would be packed for, or the one that comes nearest to it."""
    names = fitting_kernels(source, looked_up) if dtype in DTYPES else []
    if kernels != "auto":
        return kernels if kernels in names else None
    faster = kernels_by_speed(source, dtype, looked_up, measure=True)
    return next(iter(faster or names), None)


def compute_dtype(model: nn.Module, path: str) -> torch.dtype:
    """The dtype in which a layer meets its inputs: that of the model's plain parameters, else of its own numbers."""
    plain = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    return model.get_submodule(path).weight().dtype if plain is None else plain  # pyright: ignore


def kernel_rows(model: nn.Module, kernels: str = "auto") -> list[Row]:
    """The kernels that serve a model's layers, by kind of layer and matrix; what was not measured yet is."""
    counts: dict[tuple[str, str], list[Any]] = {}
    for path, weight in linear_weights(model).items():
        for source in quantised_parts(weight()):
            dtype = compute_dtype(model, path)
            kernel = kernel_of(source, kernels, dtype, weight.looked_up)
            name = name_of(source, kernel or "plain", dtype)
            entry = counts.setdefault((path.rpartition(".")[2], name), [0, kernel, source, dtype])
            entry[0] += 1
    rows = [_row(layer, name, *entry) for (layer, name), entry in counts.items()]
    CHOICES.write()
    return rows


def _row(layer: str, name: str, count: int, kernel: str | None, source: Quantized, dtype: torch.dtype) -> Row:
    matrix = name.partition(", ")[2]
    if kernel is None or dtype not in DTYPES:
        return Row(layer, matrix, count, "plain", "plain", None)
    choice = CHOICES.of(source, kernel, dtype)
    few = f"{kernel} up to {choice['most']} rows" if choice["most"] else "plain"
    return Row(layer, matrix, count, few, f"restored, {str(dtype).removeprefix('torch.')}", choice)
