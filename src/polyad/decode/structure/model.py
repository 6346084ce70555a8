"""Reading of a whole decoder: its embedding, its layers, its last norm and its head."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from polyad.decode.outline import NoLoopError, Norm, Outline
from polyad.decode.structure.layer import read_layer
from polyad.decode.structure.nearness import equal, multiple, same
from polyad.decode.structure.norms import read_norm
from polyad.decode.structure.trace import TOKENS, Trace


def read_outline(model: Any) -> Outline:
    """The structure of a model, or ``NoLoopError`` with what in it the loop does not know."""
    trace = Trace(model)
    modules = _layers(trace, model)
    layers = tuple(read_layer(trace, number, module) for number, module in enumerate(modules))
    calls = [trace.call(module, f"layer {number}") for number, module in enumerate(modules)]
    for number, (call, after) in enumerate(pairwise(calls)):
        if not equal(call.result, after.input):
            raise NoLoopError(f"something stands between layers {number} and {number + 1}")
    embed = model.get_input_embeddings()
    scale, positions = _read_embedding(trace, embed, calls[0].input)
    head = model.get_output_embeddings()
    if head is None:
        raise NoLoopError("it has no output head")
    norm = _read_last_norm(trace, model, calls[-1].result, trace.call(head, "its head").input)
    head_scale, softcap = _read_logits(trace, trace.call(head, "its head").result)
    first = next(model.parameters())
    outline = Outline(
        embed, scale, positions, layers, norm, head, head_scale, softcap, calls[0].input.dtype, first.device
    )
    return _share_rotations(outline)


def _layers(trace: Trace, model: nn.Module) -> list[nn.Module]:
    """The decoder's layers: the list of modules each of which holds the attention of its number."""
    attentions = [trace.attended[number].module for number in sorted(trace.attended)]
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == len(trace.windows) == len(attentions):
            layers = list(module)
            if all(a in set(layer.modules()) for a, layer in zip(attentions, layers, strict=True)):
                return layers
    raise NoLoopError(f"{len(attentions)} of its {len(trace.windows)} layers attend through transformers' interface")


def _share_rotations(outline: Outline) -> Outline:
    """The same with one rotation for all layers that have an equal one."""
    by_name: dict[Any, Any] = {}
    layers = []
    for layer in outline.layers:
        rotary = layer.attention.rotary
        if rotary is not None:
            rotary = by_name.setdefault(rotary.name, rotary)
        layers.append(dataclasses.replace(layer, attention=dataclasses.replace(layer.attention, rotary=rotary)))
    return dataclasses.replace(outline, layers=tuple(layers))


def _read_embedding(trace: Trace, embed: nn.Module, first: Tensor) -> tuple[float, Tensor | None]:
    rows = trace.call(embed, "its embedding").result
    if rows.shape != first.shape:
        raise NoLoopError("its embedding is of another width than its layers")
    ratio = multiple(first, rows, trace.stated)
    if same(rows * ratio, first):
        return ratio, None
    for module, calls in trace.calls.items():
        table = getattr(module, "weight", None)
        if module is embed or len(calls) != 1 or not isinstance(table, Tensor) or table.ndim != 2:
            continue
        for offset in (0, 2, 1):
            part = table.detach()[offset : TOKENS + offset]
            if part.shape == first.shape[1:] and same(rows + part, first):
                return 1.0, table.detach()[offset:]
    raise NoLoopError("its first layer reads something else than scaled embeddings and learned positions")


def _read_last_norm(trace: Trace, model: nn.Module, last: Tensor, read: Tensor) -> Norm | None:
    if equal(last, read):
        return None
    for module, before, result in trace.tensor_calls(model):
        if equal(before, last) and equal(result, read):
            return read_norm(module, before, "its last norm")
    raise NoLoopError("something else than one normalisation stands between its last layer and its head")


def _read_logits(trace: Trace, output: Tensor) -> tuple[float, float | None]:
    """The number that multiplies what the head gives, and the cap of the logits."""
    logits = trace.logits
    if equal(output, logits):
        return 1.0, None
    if output.shape == logits.shape:
        ratio = multiple(logits, output, trace.stated)
        if same(output * ratio, logits):
            return ratio, None
        cap = getattr(trace.config, "final_logit_softcapping", None)
        if isinstance(cap, float | int) and same(cap * torch.tanh(output / cap), logits):
            return 1.0, float(cap)
    raise NoLoopError("its logits are not its head's output, scaled or capped")
