"""One step on one layer or block: from the weights as they stand to what takes their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polyad.allocate.curve import WHOLE
from polyad.compress.recipe import Step
from polyad.formats import Dense, Format, LowRank, Product, Quantized, Sum
from polyad.models.blocks import Block
from polyad.models.calibration.collect import Moments
from polyad.models.replacement import Replacement


def solve_layer(
    step: Step, size: int, weight: Tensor, before: Tensor | Format | None, stats: Moments | None
) -> Tensor | Format | None:
    """What the layer's weight becomes; None where it stays.

    ``weight`` is the dense weight that all steps aim at, ``before`` what earlier steps made of it. A factorisation
    of a layer that is compressed already treats what is left over and adds to it; a quantisation of factors
    quantises each of them.
    """
    if size == WHOLE:
        return None
    if step.kind == "quantize":
        return quantized(step, size, before if isinstance(before, Format) else weight)
    target = weight - before.to_dense().to(weight.dtype) if isinstance(before, Format) else weight
    if stats is not None and stats.second is not None and stats.second.shape[0] != target.shape[1]:
        raise ValueError(
            f"{step.card.name} cannot follow a step that changed the layer's width from {stats.second.shape[0]} to "
            f"{target.shape[1]}: save the result and compress that"
        )
    if step.kind == "decompose":
        made = step.card.function(target, size, **step.options)
    else:
        made = step.card.function(target, stats, size, **step.options)
    if isinstance(before, Sum):
        return Sum((*before.terms, made))
    return Sum((before, made)) if isinstance(before, Format) else made


def quantized(step: Step, bits: int, value: Tensor | Format) -> Format:
    """Every floating-point factor of a value, quantised."""
    if isinstance(value, Tensor | Dense):
        dense = value if isinstance(value, Tensor) else value.weight
        return step.card.function(dense, bits, **step.options)
    if isinstance(value, LowRank):
        return Product(
            tuple(step.card.function(f.contiguous(), bits, **step.options) for f in (value.left, value.right))
        )
    if isinstance(value, Product):
        return Product(tuple(quantized(step, bits, factor) for factor in value.factors))
    if isinstance(value, Sum):
        return Sum(tuple(quantized(step, bits, term) for term in value.terms))
    if isinstance(value, Quantized):
        return value
    raise ValueError(f"{step.card.name} cannot quantise a {type(value).__name__}")


def solve_block(
    step: Step, size: int, block: Block, weights: Mapping[str, Tensor], stats: Mapping[str, Moments]
) -> Replacement | None:
    """What a group method makes of a block; None where it stays."""
    if size == WHOLE:
        return None
    return step.card.function(block, weights, stats, size, **step.options)


def parameters_of(model: torch.nn.Module, paths: Mapping[str, str], done: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights and biases of modules, by parameter path, as earlier steps left them."""
    found: dict[str, Tensor] = {}
    for path in paths.values():
        module: Any = model.get_submodule(path)
        for name in ("weight", "bias"):
            value = done.get(f"{path}.{name}", getattr(module, name, None))
            if isinstance(value, Format):
                raise ValueError(f"{path} is compressed already, so its block cannot be cut; put the cut first")
            if isinstance(value, Tensor):
                found[f"{path}.{name}"] = value.detach()
    return found
