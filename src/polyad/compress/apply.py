"""Application of a plan to a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from polyad._types import check_type
from polyad.compress.budget import Budget, name_stage
from polyad.compress.draft import Draft
from polyad.compress.items import items
from polyad.compress.plan import Plan, rescaled_weights
from polyad.formats import Format
from polyad.models.experts import SplitExperts
from polyad.models.replacement import Replacement
from polyad.models.surgery import Undo, replace


def apply(model: Any, plan: Plan, *, callback: Callable[..., Any] | None = None) -> Any:
    """Replace the model's layers by what the plan says, in place, and return the model.

    Steps run in order; each sees what the earlier ones made. All solving is done before the first layer is
    replaced, so an error leaves the model as it was.
    """
    apply_with_undo(model, plan, callback=callback)
    return model


def apply_with_undo(model: Any, plan: Plan, *, callback: Callable[..., Any] | None = None) -> Undo:
    """``apply``, but return a function that undoes it exactly."""
    check_type("model", model, nn.Module, "give the model itself, as polyad.load returns it")
    check_type("plan", plan, Plan, "give what polyad.plan(model, ...) returns")
    split = replace(model, {path: SplitExperts(module) for path, module in _fused_modules(model, plan)})
    try:
        return _replace_layers(model, plan, callback).then(split)
    except BaseException:
        split()
        raise


def _fused_modules(model: Any, plan: Plan) -> list[tuple[str, Any]]:
    """The modules whose experts the plan makes a layer each, by path, where the model has them."""
    modules = dict(model.named_modules())
    fused = {path: modules[path] for path in plan.split if path in modules}
    return [(path, module) for path, module in fused.items() if not isinstance(module, SplitExperts)]


def _replace_layers(model: Any, plan: Plan, callback: Callable[..., Any] | None) -> Undo:
    present = dict(model.named_modules())
    missing = [path for path in plan.selected if path not in present]
    if missing:
        raise ValueError(f"the plan is for another model: this one has no {', '.join(missing[:3])}")
    targets = {path: model.get_submodule(path) for path in plan.selected}
    draft = Draft(model)
    draft.put(rescaled_weights(model, plan.steps, plan.seed))
    for step, sizes in zip(plan.steps, plan.sizes, strict=True):
        report = name_stage(callback, step.card.name)
        work = [item for item in items(model, step, targets, sizes) if item.name in sizes]
        for number, item in enumerate(work, 1):
            replacement = item.solve(draft, plan.stats, sizes[item.name])
            if replacement is not None:
                draft.put(replacement, item.block)
            report(number, len(sizes), {})
        draft.steps.append(step)
    _shift_biases(draft, plan)
    sized = next((step.card.name for step in plan.steps if step.sized_by_budget), None)
    limit = Budget(model, targets, plan.keep, plan.count) if sized is not None and plan.keep is not None else None
    undo = draft.replace()
    try:
        if limit is not None:
            limit.check_met([model.get_submodule(path) for path in targets], str(sized))
    except ValueError:
        undo()
        raise
    return undo


def _shift_biases(draft: Draft, plan: Plan) -> None:
    """Give layers their old mean output, where means were collected."""
    for path in plan.selected:
        format, moments = draft.format(path), plan.stats.get(path)
        if format is not None and moments is not None and moments.mean is not None:
            bias = shifted_bias(draft.bias(path), draft.dense_weight(path), format, moments.mean)
            draft.put(Replacement({f"{path}.bias": bias}))


def shifted_bias(bias: Tensor | None, weight: Tensor, value: Format, mean: Tensor) -> Tensor:
    """The bias that gives a layer its old mean output when ``value`` takes the weight's place: b + (W - W') E[x]."""
    shift = (weight - value.to_dense().to(weight.dtype)) @ mean.to(weight.dtype)
    return shift if bias is None else bias + shift
