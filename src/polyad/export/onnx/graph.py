"""The inputs and outputs of a model as a graph: names, examples, and the dimensions that may change."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from polyad.export.onnx.callers import CachedCaller, Caller
from polyad.models.small_inputs import small_inputs

BATCH, LENGTH, PAST, TOTAL = "batch", "sequence", "past_sequence", "past_and_sequence"


@dataclass(frozen=True)
class ExportedGraph:
    """The inputs of a graph by name with an example of each, and the names of its outputs.

    ``axes`` gives for each input the dimensions that may change, by name. ``wrap`` makes of a model, or of a copy of
    it, the module from these inputs to a tuple of these outputs. ``kind`` is decoder, text (tokens and masks of any
    length), or fixed: inputs that have sizes of their own and differ in their number of rows alone.
    """

    kind: str
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    wrap: Callable[[nn.Module], nn.Module]
    notes: tuple[str, ...] = ()
    cache: Mapping[str, Tensor] = field(default_factory=dict)
    """The cache's inputs among these, with no token in them and one row."""


@torch.no_grad()
def graph_of(model: nn.Module, inputs: Any = None) -> ExportedGraph:
    """The graph of a model of transformers, or of another module and the inputs that it is given as an example."""
    if inputs is not None:
        return _graph_of_inputs(model, inputs)
    attempts = small_inputs(model)
    if not attempts:
        raise ValueError(
            f"{type(model).__name__} does not say what it takes; give inputs: a tensor, a tuple of tensors in the "
            "order of its arguments, or tensors by name, the first dimension of each the batch"
        )
    text = getattr(model, "main_input_name", None) == "input_ids"
    if text and not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return _cached_graph(model) or _text_graph(model)
    return _fixed_graph(model, attempts)


def _takes(model: nn.Module, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def _tokens(model: Any, batch: int, length: int) -> Tensor:
    size = model.get_input_embeddings().num_embeddings
    return torch.arange(3, 3 + batch * length).reshape(batch, length) % size


def _tensor_keys(out: Any) -> tuple[str, ...]:
    return tuple(key for key, value in out.items() if isinstance(value, Tensor) and value.ndim > 0)


def _cached_graph(model: Any) -> ExportedGraph | None:
    """The graph of a decoder with its cache, or None for other models and for caches of another kind."""
    from transformers import DynamicCache

    if not (_takes(model, "past_key_values") and _takes(model, "use_cache")):
        return None
    cache: Any = DynamicCache()
    out = model(_tokens(model, 2, 3), past_key_values=cache, use_cache=True, return_dict=True)
    layers = getattr(getattr(out, "past_key_values", None), "layers", ())
    pairs = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers]
    flat: list[Any] = [t for pair in pairs for t in pair]
    if not flat or any(not isinstance(t, Tensor) or t.ndim != 4 or t.shape[2] != 3 for t in flat):
        return None
    cached = {f"past_key_values.{i // 2}.{('key', 'value')[i % 2]}": t for i, t in enumerate(flat)}
    names = tuple(n for n in ("input_ids", "attention_mask", "position_ids") if _takes(model, n))
    given = {
        "input_ids": _tokens(model, 2, 4), "attention_mask": torch.ones(2, 7, dtype=torch.long),
        "position_ids": torch.arange(3, 7).expand(2, 4).contiguous(),
    }  # fmt: skip
    axes = {
        "input_ids": {0: BATCH, 1: LENGTH}, "attention_mask": {0: BATCH, 1: TOTAL},
        "position_ids": {0: BATCH, 1: LENGTH},
    } | {name: {0: BATCH, 2: PAST} for name in cached}  # fmt: skip
    keys = _tensor_keys(out)
    inputs = {name: given[name] for name in names} | cached
    present = tuple(name.replace("past_key_values", "present") for name in cached)
    return ExportedGraph(
        "decoder", inputs, {name: axes[name] for name in inputs}, (*keys, *present),
        lambda m: CachedCaller(m, names, keys), _left_out(model), {name: t[:1, :, :0] for name, t in cached.items()},
    )  # fmt: skip


def _left_out(model: Any) -> tuple[str, ...]:
    """Sentences on the parts of a model of several kinds of input that the graph of its text leaves out."""
    others = [kind for kind in ("vision", "audio") if hasattr(model.config, f"{kind}_config")]
    return tuple(f"the graph takes text alone: the model's part for {kind} is left out" for kind in others)


def _text_graph(model: Any) -> ExportedGraph:
    """The graph of an encoder, or of a decoder whose cache is of a kind of its own."""
    wanted = ["input_ids", "attention_mask"]
    if (getattr(model.config, "type_vocab_size", 0) or 0) > 1:
        wanted.append("token_type_ids")
    names = tuple(name for name in wanted if _takes(model, name))
    ids = _tokens(model, 2, 4)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    fixed: dict[str, Any] = {"return_dict": True}
    notes = _left_out(model)
    if _takes(model, "use_cache"):
        fixed["use_cache"] = False
    if hasattr(model, "generate") and model.can_generate():
        notes += (
            "the model's cache is of a kind of its own: the graph has none, and reads all tokens at every step",
        )
    inputs = {name: given[name] for name in names}
    keys = _tensor_keys(model(**inputs, **fixed))
    axes = {name: {0: BATCH, 1: LENGTH} for name in names}
    return ExportedGraph("text", inputs, axes, keys, lambda m: Caller(m, names, keys, fixed), notes)


def _fixed_graph(model: Any, attempts: list[dict[str, Any]]) -> ExportedGraph:
    """The graph of a model of pictures or sound, or of an encoder with a decoder: sizes as in the model's example."""
    failure: Exception | None = None
    for attempt in attempts:
        inputs = {name: two_rows(t) for name, t in attempt.items() if isinstance(t, Tensor)}
        fixed = {"return_dict": True} | {n: v for n, v in attempt.items() if not isinstance(v, Tensor)}
        if _takes(model, "use_cache"):
            fixed["use_cache"] = False
        try:
            keys = _tensor_keys(model(**inputs, **fixed))
        except Exception as error:  # whatever its forward pass may raise of inputs that are not for it
            failure = failure or error
            continue
        return _graph_by_name(model, inputs, keys, fixed)
    raise ValueError(
        f"{type(model).__name__} does not run on the inputs that were tried ({failure}); give inputs, tensors by name"
    )


def _graph_by_name(
    model: Any, inputs: dict[str, Tensor], keys: tuple[str, ...], fixed: dict[str, Any]
) -> ExportedGraph:
    names = tuple(inputs)
    words = all(not t.is_floating_point() and t.ndim == 2 for t in inputs.values())
    lengths = {name: f"decoder_{LENGTH}" if name.startswith("decoder") else LENGTH for name in names}
    axes = {name: {0: BATCH, 1: lengths[name]} if words else {0: BATCH} for name in names}
    notes = ()
    if getattr(model.config, "is_encoder_decoder", False):
        notes = ("the graph holds encoder and decoder together and has no cache: it reads all tokens at every step",)
    kind = "text" if words else "fixed"
    return ExportedGraph(kind, inputs, axes, keys, lambda m: Caller(m, names, keys, fixed), notes)


def two_rows(t: Tensor) -> Tensor:
    """The first two rows of a batch, the first one twice where there is no second."""
    return t[:2] if len(t) > 1 else torch.cat([t, t])


def _graph_of_inputs(model: nn.Module, inputs: Any) -> ExportedGraph:
    by_name = isinstance(inputs, Mapping)
    parts = list(inputs.values()) if by_name else list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    if not parts or any(not isinstance(t, Tensor) or t.ndim == 0 or len(t) == 0 for t in parts):
        raise ValueError(
            "inputs must be a tensor, a tuple of tensors in the order of the model's arguments, or tensors by name, "
            "the first dimension of each the batch"
        )
    names = (
        tuple(inputs)
        if by_name
        else ("input",)
        if len(parts) == 1
        else tuple(f"input_{i}" for i in range(len(parts)))
    )
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    rows = {n: two_rows(t.to(kind) if t.is_floating_point() else t) for n, t in zip(names, parts, strict=True)}

    def wrap(m: nn.Module) -> nn.Module:
        return Caller(m, names, None, by_name)

    count = len(wrap(model)(*rows.values()))
    outputs = ("output",) if count == 1 else tuple(f"output_{i}" for i in range(count))
    return ExportedGraph("fixed", rows, {name: {0: BATCH} for name in names}, outputs, wrap)
