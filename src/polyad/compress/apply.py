"""A plan carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from polyad.compress import solving
from polyad.compress.plan import Plan, rescaled
from polyad.compress.recipe import Step
from polyad.compress.sizing import blocks_within, named, weight_of
from polyad.formats import Format
from polyad.models.blocks import Block
from polyad.models.replacement import Replacement, modules
from polyad.models.surgery import Undo, replace

ADDS = ("decompose", "factor")
"""Kinds that treat what earlier steps left over and add to what these made."""


def apply(model: Any, plan: Plan, *, callback: Callable[..., Any] | None = None) -> Any:
    """Replace the model's layers by what the plan says, in place, and return the model.

    Steps run in order; each sees what the earlier ones made. All solving is done before the first layer is
    replaced, so an error leaves the model as it was.
    """
    applied(model, plan, callback=callback)
    return model


def applied(model: Any, plan: Plan, *, callback: Callable[..., Any] | None = None) -> Undo:
    """``apply``, returning what undoes it exactly."""
    missing = [path for path in plan.selected if path not in dict(model.named_modules())]
    if missing:
        raise ValueError(f"the plan is for another model: this one has no {', '.join(missing[:3])}")
    targets = {path: model.get_submodule(path) for path in plan.selected}
    done: dict[str, Tensor | Format] = dict(rescaled(model, plan.steps, plan.seed).weights)
    aims = {name: value for name, value in done.items() if isinstance(value, Tensor)}  # dense, as steps left them
    forward: dict[str, Any] = {}
    parts: dict[str, Block] = {}
    for step, sizes in zip(plan.steps, plan.sizes, strict=True):
        report = named(callback, step.card.name)
        if step.kind == "rescale":
            continue
        if step.kind == "group":
            found = {block.name: block for block in blocks_within(model, step, targets)}
            parts |= found
            for number, (name, size) in enumerate(sizes.items(), 1):
                weights = solving.parameters_of(model, found[name].roles, done)
                made = solving.solve_block(step, size, found[name], weights, plan.stats)
                if made is not None:
                    done.update(made.weights)
                    aims.update({name: v for name, v in made.weights.items() if isinstance(v, Tensor)})
                    for home, arguments in made.forward.items():
                        forward.setdefault(home, {}).update(arguments)
                report(number, len(sizes), {})
            continue
        for number, (path, size) in enumerate(sizes.items(), 1):
            name = path + ".weight"
            aim = aims[name] if name in aims else weight_of(model, path)
            if step.kind in ADDS and left_whole(plan.steps, step, done.get(name)):
                continue
            value = solving.solve_layer(step, size, aim, done.get(name), plan.stats.get(path))
            if value is not None:
                done[name] = value
            report(number, len(sizes), {})
    for path in plan.selected:
        value, moments = done.get(path + ".weight"), plan.stats.get(path)
        if isinstance(value, Format) and moments is not None and moments.mean is not None:
            aim = aims[path + ".weight"] if path + ".weight" in aims else weight_of(model, path)
            bias = _bias(targets[path], done.get(path + ".bias"))
            done[path + ".bias"] = shifted_bias(bias, aim, value, moments.mean)
    return replace(model, modules(model, Replacement(done, forward), parts.values()))


def shifted_bias(bias: Tensor | None, aim: Tensor, value: Format, mean: Tensor) -> Tensor:
    """The bias that gives a layer its old mean output: b + (W - W') E[x]. Done where means were collected."""
    shift = (aim - value.to_dense().to(aim.dtype)) @ mean.to(aim.dtype)
    return shift if bias is None else bias.detach() + shift


def _bias(layer: Any, changed: Tensor | Format | None) -> Tensor | None:
    """A layer's bias as the steps before left it."""
    return changed if isinstance(changed, Tensor) else layer.bias


def left_whole(steps: tuple[Step, ...], step: Step, made: Tensor | Format | None) -> bool:
    """Whether earlier steps could have left something over of a layer, and left the layer as it was."""
    earlier = steps[: steps.index(step)]
    return not isinstance(made, Format) and any(s.kind in (*ADDS, "quantize") for s in earlier)
