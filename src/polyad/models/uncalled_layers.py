"""Layers whose weight a model reads without calling them, so that nothing put in their place would run."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from polyad.models.divided import forget_division
from polyad.models.quiet import quiet
from polyad.models.small_inputs import small_inputs
from polyad.models.twin import PrivateWrites, shared_twin
from polyad.models.wrappers import plain_path, unwrap

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
    model = unwrap(model)
    kind = nn.modules.linear.NonDynamicallyQuantizableLinear
    named = ((plain_path(path), module) for path, module in model.named_modules())
    by_class = {p: _reason(model, p) for p, m in named if p and isinstance(m, kind)}
    attempts = small_inputs(model) if inputs is None else [inputs]
    if not attempts or not _can_be_copied(model):
        return UncalledLayers(by_class, False)
    with _random_state_kept(model), torch.no_grad(), quiet():
        try:
            twin = forget_division(shared_twin(model)).eval()
        except Exception:  # something in it cannot be copied
            return UncalledLayers(by_class, False)
        with PrivateWrites(twin), WeightReads(layers_with_weight(twin)) as reads:
            complete = inputs is None and _generated(twin, attempts[0])  # whose first step is that same pass
            complete = complete or any(_ran(twin, attempt) for attempt in attempts)
    return UncalledLayers(by_class | reads.reasons(model), complete)


def _can_be_copied(model: nn.Module) -> bool:
    """False where numbers are elsewhere, and where a forward pass is a function that knows the original modules."""
    elsewhere = any(p.is_meta or hasattr(p, "full_tensor") for p in model.parameters())
    return not elsewhere and not any(isinstance(vars(m).get("forward"), FunctionType) for m in model.modules())


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


def _ran(model: nn.Module, inputs: Any) -> bool:
    """Run a model; False where it takes other inputs, in which case it may raise anything."""
    try:
        if isinstance(inputs, Mapping):
            model(**inputs)
        else:
            model(*(inputs if isinstance(inputs, list | tuple) else (inputs,)))
    except Exception:
        return False
    return True


def _generated(model: Any, inputs: Mapping[str, Any]) -> bool:
    """Generate two tokens, where a model can; False for one that needs more than these inputs for it."""
    first = {key: value for key, value in inputs.items() if not key.startswith("decoder_")}
    try:
        settings = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False}
        return model.can_generate() and len(model.generate(**first, **settings)) > 0
    except Exception:
        return False


@contextmanager
def _random_state_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards the random numbers of torch and Python go on as if nothing had been drawn."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(state)
