"""Reading of what stands in the place of an MLP and is no plain one: experts, with what shares their input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from polyad.decode.outline import NoLoopError, OwnModules
from polyad.decode.structure.nearness import equal, same
from polyad.decode.structure.trace import TOKENS, Call, Trace


def read_own_modules(trace: Trace, layer: nn.Module, attention: nn.Module, what: str) -> tuple[Any, Tensor, Tensor]:
    """The outermost modules of a layer outside of its attention that hold matrices; their input and summed output.

    They are called as they are, so that each must give every token what it gives it among others.
    """
    calls = _outermost(trace, layer, attention)
    if not calls or not all(equal(call.input, calls[0][1].input) for _, call in calls):
        raise NoLoopError(f"{what} has {len(calls)} modules outside of its attention, which have no input in common")
    for module, call in calls:
        if not _is_by_token(module, call):
            raise NoLoopError(f"{what}: its {type(module).__name__} does not treat each token by itself")
    first, total = calls[0][1].input, sum(_like(call.result, layer_width(call)) for _, call in calls)
    modules = OwnModules(tuple(module for module, _ in calls), first.ndim == 2)
    return modules, first if first.ndim == 3 else first[None], total  # pyright: ignore[reportReturnType]


def layer_width(call: Call) -> int:
    """The channels of the hidden states that a module was called with."""
    return call.input.shape[-1]


def _outermost(trace: Trace, layer: nn.Module, attention: nn.Module) -> list[tuple[nn.Module, Call]]:
    calls: list[tuple[nn.Module, Call]] = []
    pending = list(layer.children())
    while pending:
        module = pending.pop(0)
        if module is attention:
            continue
        if attention in set(module.modules()):
            pending = list(module.children()) + pending
        elif any(p.ndim > 1 for p in (*module.parameters(), *module.buffers())):
            seen = trace.calls.get(module, [])
            if len(seen) == 1:
                calls.append((module, seen[0]))
            else:  # a list of modules, or one that is run in parts
                pending = list(module.children()) + pending
    return calls


def _like(x: Tensor, width: int) -> Tensor:
    return x.reshape(1, TOKENS, width)


@torch.no_grad()
def _is_by_token(module: nn.Module, call: Call) -> bool:
    """True where a module called with fewer tokens, in another order, gives each what it gave it."""
    values = [v for v in (*call.args, *call.kwargs.values()) if v is not None]
    x = call.input
    if len(values) != 1 or x.numel() != TOKENS * x.shape[-1] or call.result.numel() != x.numel():
        return False
    for rows in (list(reversed(range(TOKENS))), [TOKENS // 2]):
        again = result_of(module(x[..., rows, :]))
        if not same(again.reshape(len(rows), -1), call.result.reshape(TOKENS, -1)[rows]):
            return False
    return True


def result_of(output: Any) -> Tensor:
    """The first tensor of what a module gives."""
    return output if isinstance(output, Tensor) else output[0]
