"""A copy of a model that shares its tensors, to run without touching the model."""

from __future__ import annotations

import copy

from torch import Tensor, nn

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
