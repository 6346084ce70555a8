"""The line that says how much of a model a plan reaches, and what it leaves whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from polyad.models.compressible import fused_experts
from polyad.models.layer_matrices import multiplies

NAMED = 2
"""Layers that are named of each reason; the others are counted."""


def coverage_line(model: nn.Module, chosen: Iterable[str], left: Mapping[str, str]) -> str:
    """A sentence: so many of so many layers, what share of all bytes, and what was left whole and why."""
    paths, everything = list(chosen), _bytes([model])
    layers = {path for path, module in model.named_modules() if multiplies(module)}
    layers |= {*left, *fused_experts(model), *paths}
    share = _bytes([model.get_submodule(path) for path in paths]) / max(everything, 1)
    said = f"{len(paths)} of {len(layers)} layers were chosen, {100 * share:.1f} % of the model's bytes"
    reasons: dict[str, list[str]] = {}
    for path, reason in left.items():
        reasons.setdefault(reason, []).append(path)
    others = [path for path in layers if path not in left and path not in paths]
    if others:
        reasons["not in the selection"] = sorted(others)
    parts = [_part(model, reason, group, everything) for reason, group in reasons.items()]
    return f"{said}; left whole: {'; '.join(parts)}" if parts else said


def _part(model: nn.Module, reason: str, paths: list[str], everything: int) -> str:
    share = 100 * _bytes([_tensor_or_layer(model, path) for path in paths]) / max(everything, 1)
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"{', '.join(paths[:NAMED])}{more} ({share:.1f} %: {reason})"


def _tensor_or_layer(model: nn.Module, path: str) -> nn.Module | Tensor:
    owner, _, name = path.rpartition(".")
    home = model.get_submodule(owner)
    return home._parameters[name] if name in home._parameters else model.get_submodule(path)  # pyright: ignore


def _bytes(parts: list[nn.Module] | list[nn.Module | Tensor]) -> int:
    """Bytes of parameters and of what is stored in their place, each once."""
    sizes: dict[int, int] = {}
    for part in parts:
        tensors = [part] if isinstance(part, Tensor) else part.state_dict(keep_vars=True).values()
        sizes |= {id(tensor): tensor.numel() * tensor.element_size() for tensor in tensors}
    return sum(sizes.values())
