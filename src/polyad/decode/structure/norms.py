"""Reading of a normalisation: its kind is found from the numbers that it makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad.decode.outline import NoLoopError, Norm
from polyad.decode.structure.nearness import same

EPSILONS = ("variance_epsilon", "eps", "epsilon", "norm_eps", "layer_norm_eps")


def read_norm(module: Any, x: Tensor, what: str) -> Norm:
    """The normalisation that a module does, tried on x (..., width) and on numbers so small that epsilon shows."""
    with torch.no_grad():
        samples = [(value, module(value)) for value in (x, x * 1e-3, x * 0.1)]
        for norm in _candidates(module, x.shape[-1]):
            if all(same(normalize(norm, value), result) for value, result in samples):
                return norm
    raise NoLoopError(f"{what} is a {type(module).__name__}, which is no RMS and no layer normalisation")


def normalize(norm: Norm, x: Tensor) -> Tensor:
    """A normalisation in plain operations, in x's dtype."""
    wide = x.float() if x.dtype.itemsize < 4 else x
    shape = (x.shape[-1],)
    y = F.rms_norm(wide, shape, eps=norm.eps) if norm.kind == "rms" else F.layer_norm(wide, shape, eps=norm.eps)
    if norm.weight is not None:
        y = y * norm.weight
    return (y if norm.bias is None else y + norm.bias).to(x.dtype)


def _candidates(module: nn.Module, width: int) -> list[Norm]:
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    tensors = [t.double() if t.dtype == torch.float64 else t.float() for t in parameters.values()]
    weight = next((t for n, t in zip(parameters, tensors, strict=True) if n == "weight"), None)
    bias = next((t for n, t in zip(parameters, tensors, strict=True) if n == "bias"), None)
    if len(parameters) > (weight is not None) + (bias is not None):
        return []
    if any(t is not None and t.shape[-1] != width for t in (weight, bias)):
        return []
    values = {getattr(module, name) for name in EPSILONS if isinstance(getattr(module, name, None), float)}
    epsilons = sorted(values) or [torch.finfo(torch.float32).eps, 1e-5, 1e-6]
    weights = [weight] if weight is None else [weight, 1 + weight]
    return [Norm(kind, eps, w, bias) for kind in ("rms", "layer") for eps in epsilons for w in weights]
