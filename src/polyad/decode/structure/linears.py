"""Linear layers of a model, under whatever stands in their place."""

from __future__ import annotations

from typing import Any

from torch import nn

from polyad.decode.structure.nearness import equal
from polyad.decode.structure.trace import Trace
from polyad.models.layer_matrices import multiplies


def is_linear(module: Any) -> bool:
    """True for a linear layer, dense or holding a format, with adapters on it or without."""
    return multiplies(getattr(module, "layer", module))


def linear_calls(trace: Trace, module: nn.Module, *, without: nn.Module | None = None) -> list[Any]:
    """(layer, input, output) of each linear layer inside of a module, in order of their calls.

    ``without`` is a module whose own are left out. What stands inside of a linear layer, as adapters do, is not one.
    """
    left = set() if without is None else set(without.modules())
    calls = [c for c in trace.tensor_calls(module) if c[0] not in left and is_linear(c[0])]
    inside = {m for layer, _, _ in calls for m in layer.modules() if m is not layer}
    return [call for call in calls if call[0] not in inside]


def other_calls(
    trace: Trace, module: nn.Module, linears: list[Any], *, without: nn.Module | None = None
) -> list[Any]:
    """(module, input, output) of what else turns a tensor into another of its shape, and changes it."""
    left = set() if without is None else set(without.modules())
    left |= {m for layer, _, _ in linears for m in layer.modules()}
    calls = [c for c in trace.tensor_calls(module) if c[0] not in left]
    return [(m, x, y) for m, x, y in calls if x.shape == y.shape and not equal(x, y)]
