"""The text that stands for the adapters of a model where they are printed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def describe_adapters(
    model: nn.Module, parameters: Mapping[str, Mapping[str, nn.Parameter]], active: Mapping[str, float]
) -> str:
    """The model with its count of numbers, and a line for each adapter: its numbers, and those that are trained.

    >>> from polyad.adapters import Adapters, LoRA
    >>> adapters = Adapters(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)))
    >>> _ = adapters.attach("mine", "*", LoRA, rank=1)
    >>> adapters
    Adapters(Sequential, 92 parameters without adapters)
      mine: 26 parameters, 26 trainable, 28.3 % of the model's; active
    """
    added = {id(p) for of in parameters.values() for p in of.values()}
    total = sum(p.numel() for p in model.parameters() if id(p) not in added)
    lines = [f"Adapters({type(model).__name__}, {total:,} parameters without adapters)"]
    for name, of in parameters.items():
        count = sum(p.numel() for p in of.values())
        trainable = sum(p.numel() for p in of.values() if p.requires_grad)
        weight = active.get(name)
        state = "not active" if weight is None else "active" if weight == 1 else f"active, times {weight:g}"
        share = f", {100 * trainable / total:.3g} % of the model's" if total else ""
        lines.append(f"  {name}: {count:,} parameters, {trainable:,} trainable{share}; {state}")
    return "\n".join(lines)
