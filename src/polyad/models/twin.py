"""A copy of a model that shares its tensors, run on small inputs without touching the model."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from polyad.models.quiet import quiet
from polyad.models.small_inputs import small_inputs
from polyad.models.wrappers import unwrap

SMALL = 2**20
"""The most bytes of a buffer that the copy gets for itself: counts and tables; larger ones are weights."""


@dataclass(frozen=True)
class LayerCall:
    """The arguments with which a model called one of its layers."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def to(self, dtype: torch.dtype) -> LayerCall:
        """The same with every floating-point tensor in this dtype."""
        return LayerCall(_cast(self.args, dtype), _cast(dict(self.kwargs), dtype))


class Twin:
    """A model's copy in evaluation mode that shares its tensors, and the inputs on which it can be run.

    ``inputs`` are keyword arguments by name, positional ones in a tuple or a list, or one tensor; by default the
    small ones that a model of transformers states. Nothing of the model changes. ``module`` is None where numbers
    are elsewhere, or something in the model cannot be copied; ``original`` is the model without wrappers.
    """

    def __init__(self, model: nn.Module, inputs: Any = None) -> None:
        self.module: nn.Module | None = None
        self.given = inputs is not None
        parameters = list(model.parameters())
        if not any(p.is_meta or hasattr(p, "full_tensor") for p in parameters):
            with torch.no_grad(), quiet():
                try:
                    self.module = shared_twin(model).eval()
                except Exception:  # something in it cannot be copied
                    self.module = None
        self.original = unwrap(model)
        self.devices = sorted({p.device.index or 0 for p in parameters if p.device.type == "cuda"})
        self.attempts: list[Any] = [inputs] if self.given else small_inputs(self.original)
        # a forward pass that is a function knows the original modules
        self.runs_itself = not any(isinstance(vars(m).get("forward"), FunctionType) for m in model.modules())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the copy may be run: it writes into tensors of its own, and random numbers go on as before."""
        assert self.module is not None
        state = random.getstate()
        try:
            with torch.random.fork_rng(self.devices), torch.no_grad(), quiet(), PrivateWrites(self.module):
                yield
        finally:
            random.setstate(state)

    def run(self, watch: AbstractContextManager[Any]) -> bool:
        """Run the copy once within ``watch``; True if it ran to its end.

        It generates two tokens where it can, and else is given the first inputs that fit.
        """
        with self.running(), watch:
            first = not self.given and _generates(self.module, self.attempts[0])  # whose first step is that same pass
            return first or any(_runs(self.module, attempt) for attempt in self.attempts)

    def layer_calls(self, paths: Iterable[str]) -> dict[str, LayerCall]:
        """The arguments that the layers at these paths get when the copy is run once without a cache."""
        calls: dict[str, LayerCall] = {}
        twin = self.module
        if twin is None:
            return calls

        def note(path: str) -> Any:
            return lambda _m, args, kwargs: calls.setdefault(path, LayerCall(args, kwargs)) and None

        hooks = [twin.get_submodule(path).register_forward_pre_hook(note(path), with_kwargs=True) for path in paths]
        try:
            with self.running():
                for inputs in reversed(self.attempts):  # the last of them asks for no cache
                    calls.clear()
                    if _runs(twin, inputs):
                        break
        finally:
            for hook in hooks:
                hook.remove()
        return calls


def shared_twin(model: nn.Module) -> nn.Module:
    """A copy of every module, without hooks and wrappers, that holds the model's own parameters and large buffers.

    Modes, hooks, small buffers and whatever a forward pass writes into its modules are the copy's own.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> twin = shared_twin(model).eval()
    >>> twin[0].weight is model[0].weight, twin[0] is model[0], model.training
    (True, False, True)
    """
    shared: dict[int, Tensor] = {}
    model = unwrap(model)
    for module in model.modules():
        stored = (*vars(module).values(), *module._parameters.values(), *module._buffers.values())
        shared |= {id(t): t for t in stored if isinstance(t, Tensor)}
    for buffer in model.buffers():
        if buffer.nbytes <= SMALL and not buffer.requires_grad:
            shared[id(buffer)] = buffer.clone()
    twin = copy.deepcopy(model, dict(shared))
    for module in list(twin.modules()):
        for name, child in module._modules.items():
            module._modules[name] = child if child is None else unwrap(child)
    for module in twin.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            hooks.clear()
    return twin


class PrivateWrites(TorchFunctionMode):
    """Within it, a tensor that a twin shares and writes into in place becomes the twin's own before that.

    RWKV, for one, divides weights of later layers in its first forward pass for inference.
    """

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self.twin = twin
        self.shared = {id(t) for t in (*twin.parameters(), *twin.buffers())}

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        name = getattr(func, "__name__", "")
        writes = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
        if writes and name != "requires_grad_" and args and id(args[0]) in self.shared:
            args = (self._private_copy(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))

    def _private_copy(self, tensor: Tensor) -> Tensor:
        """A copy of a shared tensor, now in its place in the twin."""
        new = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            new = nn.Parameter(new, tensor.requires_grad)
        for module in self.twin.modules():
            for table in (module._parameters, module._buffers):
                table.update({key: new for key, value in table.items() if value is tensor})  # pyright: ignore
        return new


def _runs(model: Any, inputs: Any) -> bool:
    """Run a model; False where it takes other inputs, in which case it may raise anything."""
    try:
        if isinstance(inputs, Mapping):
            model(**inputs)
        else:
            model(*(inputs if isinstance(inputs, list | tuple) else (inputs,)))
    except Exception:
        return False
    return True


def _generates(model: Any, inputs: Mapping[str, Any]) -> bool:
    """Generate two tokens, where a model can; False for one that needs more than these inputs for it."""
    first = {key: value for key, value in inputs.items() if not key.startswith("decoder_")}
    try:
        settings = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False}
        return model.can_generate() and len(model.generate(**first, **settings)) > 0
    except Exception:
        return False


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return type(value)(_cast(part, dtype) for part in value)
    return {key: _cast(part, dtype) for key, part in value.items()} if type(value) is dict else value
