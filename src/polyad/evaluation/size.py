"""Numbers and bytes that a model holds, and what a token costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from polyad.layers import Factors, Linear
from polyad.models.experts import layer_at
from polyad.models.layer_matrices import linear_types, matrix_shape


@dataclass(frozen=True)
class Share:
    """A quantity of the selected modules and of the whole model."""

    selected: int
    total: int


def parameters(model: nn.Module, selected: Iterable[str]) -> Share:
    """Numbers represented by what is stored: a code counts one, indices and scales none; tied weights once."""
    chosen = _modules(model, selected)
    return Share(_parameters(chosen), _parameters([model]))


def nbytes(model: nn.Module, selected: Iterable[str], *, width: int | None = None) -> Share:
    """Bytes of the tensors that a folder would hold; with ``width``, that many for each weight."""
    chosen = _modules(model, selected)
    return Share(_bytes(chosen, width), _bytes([model], width))


def operations_per_token(model: nn.Module) -> int:
    """Operations a token of all linear layers, the output head included; attention over the context is left out."""
    total = 0
    for module in model.modules():
        if isinstance(module, Linear):
            total += module.weight().flops(1)
        elif isinstance(module, linear_types()):
            out, inner = matrix_shape(module)
            total += 2 * out * inner
    return total


def _modules(model: nn.Module, selected: Iterable[str]) -> list[nn.Module]:
    return [layer_at(model, path) for path in selected]


def _parameters(roots: list[nn.Module]) -> int:
    total, counted = 0, set[int]()
    for root in roots:
        pending = [root]
        while pending:
            module = pending.pop()
            if id(module) in counted:
                continue
            counted.add(id(module))
            if isinstance(module, Factors):  # its format knows what its codes and factors stand for
                total += module().parameters
                continue
            pending.extend(module.children())
            for tensor in module._parameters.values():
                if tensor is not None and id(tensor) not in counted:
                    counted.add(id(tensor))
                    total += tensor.numel()
    return total


def _bytes(roots: list[nn.Module], width: int | None) -> int:
    sizes: dict[int, int] = {}
    for root in roots:
        for tensor in root.state_dict(keep_vars=True).values():
            cast = isinstance(tensor, nn.Parameter) and tensor.is_floating_point()  # scales keep their dtype
            size = width if width is not None and cast else tensor.element_size()
            sizes[id(tensor)] = tensor.numel() * size
    return sum(sizes.values())
