"""Layers whose weight a model reads without calling them, so that nothing put in their place would run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from polyad.models.divided import forget_division
from polyad.models.twin import Twin
from polyad.models.wrappers import plain_path

WEIGHT = ("weight", "parametrizations.weight")
LIKE = ("type_as", "expand_as", "view_as", "reshape_as", "result_type", "is_same_size")
"""Functions that take a tensor for its dtype or shape alone, as do those called new_* and *_like."""


class UncalledLayers(NamedTuple):
    """The layers whose weight is read without calling them, and whether the model could be run to find them."""

    reasons: dict[str, str]
    """What reads the weight, by the layer's path: "its owner, a MambaMixer, reads its weight without calling it"."""
    complete: bool
    """False where the model did not run to its end: there may be more such layers than are named."""


def uncalled_layers(model: nn.Module, inputs: Any = None) -> UncalledLayers:
    """Run a copy of a model once on small inputs and name the layers whose weight it reads without calling them.

    ``inputs`` are keyword arguments by name, positional ones in a tuple or a list, or one tensor; by default those
    that a model of transformers states, which then also generates two tokens, since a step with a cache may read what
    the first pass calls. Nothing of the model changes, nor the state of the random numbers.

    >>> attention = nn.MultiheadAttention(8, 2)
    >>> x = torch.zeros(1, 3, 8)
    >>> uncalled_layers(nn.ModuleDict({"a": attention})).reasons
    {'a.out_proj': 'its owner, a MultiheadAttention, reads its weight without calling it'}
    """
    return uncalled_in(Twin(model, inputs))


def uncalled_in(twin: Twin) -> UncalledLayers:
    """``uncalled_layers`` of a model of which there is a copy already."""
    model = twin.original
    kind = nn.modules.linear.NonDynamicallyQuantizableLinear
    named = ((plain_path(path), module) for path, module in model.named_modules())
    uncalled = dict.fromkeys(path for path, module in named if path and isinstance(module, kind))
    complete = False
    if twin.module is not None and twin.attempts and twin.runs_itself:
        reads = WeightReads(layers_with_weight(forget_division(twin.module)))
        complete = twin.run(reads)
        uncalled |= reads.past_call
    return UncalledLayers({path: _reason(model, path) for path in uncalled}, complete)


def layers_with_weight(model: nn.Module) -> dict[str, nn.Module]:
    """Every module in a model that has a weight of its own, by path; those inside of it count as it."""
    layers: dict[str, nn.Module] = {}
    for full, module in model.named_modules():
        path = plain_path(full)
        inside = path.rpartition(".weight")[0] in layers or ".parametrizations." in path
        if path and not inside and next(_weights(module), None) is not None:
            layers[path] = module
    return layers


class WeightReads(TorchFunctionMode):
    """Within it, notes which of these layers' weights are read while the layer does not run."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers, self.running = layers, Counter[str]()
        self.past_call, self._hooks = dict[str, None](), ExitStack()
        self.owners, self.views = dict[int, list[str]](), list[Tensor]()
        for path, layer in layers.items():
            for tensor in _weights(layer):
                self.views.append(tensor)  # held, so that no other tensor gets its id
                self.owners.setdefault(id(tensor), []).append(path)

    def __enter__(self) -> WeightReads:
        for path, layer in self.layers.items():
            before = layer.register_forward_pre_hook(lambda *_, path=path: self.running.update([path]))
            after = layer.register_forward_hook(lambda *_, path=path: self.running.subtract([path]), always_call=True)
            self._hooks.callback(before.remove)
            self._hooks.callback(after.remove)
        if "torch._dynamo" in sys.modules:  # parts that are compiled run as they are written
            self._hooks.enter_context(torch.compiler.set_stance("force_eager"))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hooks.close()
        super().__exit__(*error)

    def reasons(self, model: nn.Module) -> dict[str, str]:
        """The reader of each of these weights, by the layer's path in the model."""
        return {path: _reason(model, path) for path in self.past_call}

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        like = name in LIKE or name.startswith("new_") or name.endswith("_like")
        if not like and _holds_tensor(result):
            self._note_reads(_tensors((*args, *(kwargs or {}).values())), name, result)
        return result

    def _note_reads(self, tensors: Iterable[Tensor], name: str, result: Any) -> None:
        for i, tensor in enumerate(tensors):
            owners = self.owners.get(id(tensor), ())
            if not owners or any(self.running[path] for path in owners) or (name == "to" and i):
                continue
            if name in ("__get__", "detach") and isinstance(result, Tensor):  # asked for its dtype next, perhaps
                self.views.append(result)
                self.owners[id(result)] = list(owners)
            else:
                self.past_call.update(dict.fromkeys(owners))


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """The tensors that a module's weight is made of."""
    weight = vars(module).get("weight")
    if isinstance(weight, Tensor):
        yield weight
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if name == "weight" or name.startswith(tuple(f"{part}." for part in WEIGHT)):
            yield tensor


def _holds_tensor(result: Any) -> bool:
    return next(_tensors((result,)), None) is not None


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among these values, those in lists and tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _reason(model: nn.Module, path: str) -> str:
    """The sentence part that says who reads a layer's weight."""
    owner = path.rpartition(".")[0]
    while owner and isinstance(model.get_submodule(owner), nn.ModuleList | nn.ModuleDict):
        owner = owner.rpartition(".")[0]
    return f"its owner, a {type(model.get_submodule(owner)).__name__}, reads its weight without calling it"
