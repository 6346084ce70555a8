"""The function that a layer with a forward pass of its own is of its weight, tried on small random numbers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

TRIED = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
QUANTISERS = ("torch.ao.", "torchao.", "bitsandbytes.", "transformers.integrations.")
"""Modules whose layers stand for their weight rounded, beside which a change is applied unrounded."""

ROWS = 16
"""The most rows of an embedding's table that are tried."""

CLOSE = 1e-4
"""The relative difference of equal results: a forward pass may compute in float32 whatever it is given."""


class LayerFunction(NamedTuple):
    """The use that a layer makes of its weight besides torch's own product or look-up."""

    kind: str
    """``scaled``: torch's own result times ``gain``. ``own``: linear in the weight in some other way, so that a
    changed weight has to stand in the layer. ``unknown``: it would not run. ``refused``: ``reason`` says why."""
    gain: float = 1.0
    reason: str = ""


def function_of(layer: nn.Module) -> LayerFunction | None:
    """The function of a layer whose class has a forward pass of its own; None where an object has one, and for
    layers of a library that quantises."""
    weight = layer._parameters.get("weight")
    if not isinstance(layer, TRIED) or "forward" in vars(layer) or getattr(layer, "max_norm", None) is not None:
        return None
    if type(weight) is not nn.Parameter or not weight.is_floating_point() or weight.dtype.itemsize < 2:
        return None
    return None if type(layer).__module__.startswith(QUANTISERS) else _try_weights(layer, weight)


def _try_weights(layer: nn.Module, weight: Tensor) -> LayerFunction:
    """Try a layer, an embedding, linear layer or convolution of torch, with other weights in place of its own.

    It runs in evaluation mode, in float64, on a copy that shares its other tensors; nothing of the layer changes.
    """
    if weight.is_meta or weight.device.type == "mps":
        return LayerFunction("own")
    with torch.no_grad(), torch.random.fork_rng([]):
        layer = _in_float64(layer)
        weights = _weights(layer, weight)
        outputs: list[list[Any]] = []
        for x in _inputs(layer, weight):
            try:
                outputs.append([with_weights(layer, {"weight": w})(x) for w in weights])
            except Exception:  # it takes other inputs, about which nothing is known
                return LayerFunction("unknown")
            for kind in {type(y) for y in outputs[-1]} - {Tensor}:
                return LayerFunction("refused", reason=f"its forward pass returns a {kind.__name__}, not one tensor")
            first, second, both, none = (y.double() for y in outputs[-1])
            if first.shape != both.shape or not _close(first + second - none, both):
                why = "its forward pass is not linear in the weight, so that a change of the weight has no output"
                return LayerFunction("refused", reason=why)
        return _scaled(layer, weights[0], [y[0] for y in outputs], weight)


def with_weights(layer: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A shallow copy of a layer with these tensors, by dotted name, in place of its own; the layer is not touched."""
    clone, inner = copy.copy(layer), dict[str, dict[str, Tensor]]()
    clone._parameters, clone._buffers = dict(layer._parameters), dict(layer._buffers)
    for name, tensor in weights.items():
        first, _, rest = name.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = tensor
        else:
            table: dict[str, Any] = clone._buffers if first in clone._buffers else clone._parameters
            table[first] = tensor
    modules = {name: with_weights(layer.get_submodule(name), tensors) for name, tensors in inner.items()}
    clone._modules = {**layer._modules, **modules}
    return clone


def call_with_weights(layer: nn.Module, weights: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """The output of a layer with these tensors for its parameters, which stay as they are, for other threads too."""
    if torch.compiler.is_compiling():  # which traces no copies, and changes nothing when the graph runs
        return functional_call(layer, weights, args, kwargs)
    return with_weights(layer, weights)(*args, **kwargs)


def _in_float64(layer: nn.Module) -> nn.Module:
    """A copy without hooks, in evaluation mode, whose small parameters are float64."""
    clone = copy.copy(layer).eval() if not layer._modules else copy.deepcopy(layer).double().eval()
    clone._parameters = {
        name: p if p is None or name == "weight" else nn.Parameter(p.detach().double(), requires_grad=False)
        for name, p in clone._parameters.items()
    }
    for table in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        clone.__dict__[table] = type(getattr(clone, table))()
    if isinstance(clone, nn.Embedding):
        clone.padding_idx = None  # which may be beyond the rows tried, and concerns gradients alone
    return clone


def _weights(layer: nn.Module, weight: Tensor) -> list[Tensor]:
    """Two random weights, their sum, and none at all."""
    shape = (min(ROWS, len(weight)), weight.shape[1]) if isinstance(layer, nn.Embedding) else weight.shape
    generator = Generator(weight.device).manual_seed(0)
    options: Any = {"device": weight.device, "dtype": torch.float64, "generator": generator}
    first, second = (torch.randn(shape, **options) for _ in range(2))
    return [first, second, first + second, torch.zeros_like(first)]


def _inputs(layer: Any, weight: Tensor) -> list[Tensor]:
    """Inputs of a layer; a convolution's of several sizes, since padding may show at some of them alone."""
    options: Any = {"device": weight.device, "dtype": torch.float64}
    if isinstance(layer, nn.Embedding):
        return [torch.tensor([[3, 0, 2, 2], [1, 1, 3, 0]], device=weight.device) % len(weight)]
    generator = Generator(weight.device).manual_seed(1)
    if isinstance(layer, nn.Linear):
        return [torch.randn(2, layer.in_features, generator=generator, **options)]
    geometry = list(zip(layer.kernel_size, layer.dilation, layer.stride, strict=True))
    sizes = [[(k - 1) * d + 1 + 2 * s + more for k, d, s in geometry] for more in range(1 + max(layer.stride))]
    return [torch.randn(1, layer.in_channels, *size, generator=generator, **options) for size in sizes]


def _scaled(layer: nn.Module, weight: Tensor, outputs: list[Tensor], stored: Tensor) -> LayerFunction:
    """The gain of torch's own result in what a layer gave for this weight, in the dtype of the stored one."""
    kind: Any = next(k for k in (nn.Embedding, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(layer, k))
    clone: Any = with_weights(layer, {"weight": weight})
    try:
        plain = [kind.forward(clone, x) for x in _inputs(layer, stored)]
    except (RuntimeError, IndexError, ValueError):
        return LayerFunction("own")
    if any(a.shape != b.shape for a, b in zip(plain, outputs, strict=True)):
        return LayerFunction("own")
    gain = float((plain[0] * outputs[0]).sum() / plain[0].square().sum())
    if not all(_close(gain * a, b) for a, b in zip(plain, outputs, strict=True)):
        return LayerFunction("own")
    if kind is nn.Embedding:  # a scale that is rounded to the weight's dtype shows where that dtype computes
        ones = torch.ones(min(ROWS, len(stored)), stored.shape[1], dtype=stored.dtype, device=stored.device)
        rows = with_weights(layer, {"weight": ones})(torch.zeros(1, dtype=torch.long, device=stored.device))
        return LayerFunction("scaled", float(rows[0, 0]))
    return LayerFunction("scaled" if abs(gain - 1) < CLOSE else "own")


def _close(x: Tensor, y: Tensor) -> bool:
    return bool((x - y).norm() <= CLOSE * y.norm())


def has_hooks(layer: nn.Module) -> bool:
    """True for a layer with hooks or with a forward pass that somebody put there."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(hooks) or "forward" in vars(layer)
