"""The weights of a model as the steps of a recipe leave them, before anything is replaced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from polyad import _check
from polyad.compress.recipe import Step
from polyad.formats import Format
from polyad.models.blocks import Block
from polyad.models.layer_matrices import flat_weight, layer_matrix
from polyad.models.replacement import Replacement, put_in_place
from polyad.models.surgery import Undo


def refuse_compressed(path: str, layer: Any) -> None:
    """Refuse a layer whose weight is a format already."""
    if not isinstance(layer.weight, Tensor):
        raise ValueError(
            f"{path} is compressed already (it holds {layer.weight()!r}); compress the original, with both methods "
            "as the steps of one recipe, or leave the layer out of the selection"
        )


class Draft:
    """New values of a model's parameters, by path, on which the steps of a recipe work one after another.

    ``format`` is what a layer's weight has become, ``dense_weight`` the weight that all steps come near to: that of
    the model, or the last dense one that a step made. The model is read, and changed by ``replace`` alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.steps: list[Step] = []  # those that are done
        self._values: dict[str, Tensor | Format] = {}
        self._dense: dict[str, Tensor] = {}
        self._forward: dict[str, dict[str, Any]] = {}
        self._blocks: list[Block] = []

    def format(self, path: str) -> Format | None:
        """The format that earlier steps made of a layer's weight; None where it is dense."""
        value = self._values.get(f"{path}.weight")
        return value if isinstance(value, Format) else None

    def dense_weight(self, path: str) -> Tensor:
        """The dense weight of a layer as a matrix (out, in), checked."""
        dense = self._dense.get(f"{path}.weight")
        if dense is not None:
            return flat_weight(dense)
        layer = self.model.get_submodule(path)
        refuse_compressed(path, layer)
        return _check.finite(f"{path}.weight", layer_matrix(layer))

    def parameters(self, paths: Iterable[str]) -> dict[str, Tensor]:
        """Dense weights and biases of modules, by parameter path."""
        tensors: dict[str, Tensor] = {}
        for path in paths:
            if self.format(path) is not None:
                raise ValueError(f"{path} is compressed already, so its block cannot be cut; put the cut first")
            tensors[f"{path}.weight"] = self.dense_weight(path)
            bias = self.bias(path)
            if bias is not None:
                tensors[f"{path}.bias"] = bias
        return tensors

    def bias(self, path: str) -> Tensor | None:
        """A layer's bias as the steps left it."""
        changed = self._values.get(f"{path}.bias")
        bias = changed if isinstance(changed, Tensor) else getattr(self.model.get_submodule(path), "bias", None)
        return None if bias is None else bias.detach()

    def keep_mean(self, path: str, mean: Tensor) -> None:
        """Give a layer whose weight became a format its old mean output, by its bias; ``mean`` is of its inputs."""
        format = self.format(path)
        if format is not None:
            bias = shifted_bias(self.bias(path), self.dense_weight(path), format, mean)
            self.put(Replacement({f"{path}.bias": bias}))

    def put(self, replacement: Replacement, block: Block | None = None) -> None:
        """Take new values in; ``block`` is the one whose forward pass they change."""
        self._values.update(replacement.weights)
        self._dense.update({path: value for path, value in replacement.weights.items() if isinstance(value, Tensor)})
        for path, arguments in replacement.forward.items():
            self._forward.setdefault(path, {}).update(arguments)
        if block is not None:
            self._blocks.append(block)

    def replace(self) -> Undo:
        """Put the values into the model's layers. Returns what undoes it exactly."""
        return put_in_place(self.model, Replacement(self._values, self._forward), self._blocks)


def shifted_bias(bias: Tensor | None, weight: Tensor, value: Format, mean: Tensor) -> Tensor:
    """The bias that gives a layer its old mean output when ``value`` takes the weight's place: b + (W - W') E[x]."""
    shift = (weight - value.to_dense().to(weight.dtype)) @ mean.to(weight.dtype)
    return shift if bias is None else bias + shift
