"""A copy of a model that shares its tensors, to run without touching the model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from polyad.models.wrappers import unwrap

SMALL = 2**20
"""The most bytes of a buffer that the copy gets for itself: counts and tables; larger ones are weights."""


def shared_twin(model: nn.Module) -> nn.Module:
    """A copy of every module, without hooks and wrappers, that holds the model's own parameters and large buffers.

    Modes, hooks, small buffers and whatever a forward pass writes into its modules are the copy's own.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> twin = shared_twin(model).eval()
    >>> twin[0].weight is model[0].weight, twin[0] is model[0], model.training
    (True, False, True)
    """
    shared: dict[int, Tensor] = {}
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
