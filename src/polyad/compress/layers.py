"""The layers of a model that a compression works on, and every check of them and of the model's numbers."""

from __future__ import annotations

from torch import nn

from polyad.compress.draft import refuse_compressed
from polyad.compress.plan_record import Plan
from polyad.compress.recipe import check_budget
from polyad.compress.terms import Terms
from polyad.models.compressible import Selection, select_layers
from polyad.models.experts import SplitExperts, split_experts
from polyad.models.loading import check_numbers


def split_modules(model: nn.Module, terms: Terms, plan: Plan | None) -> dict[str, nn.Module]:
    """Experts as a layer each, by the path of the module they stand in: those of a plan, where there is one."""
    if plan is None:
        return split_experts(model) if terms.takes_experts else {}
    present = dict(model.named_modules())
    fused = {path: present[path] for path in plan.split if path in present}
    return {path: SplitExperts(module) for path, module in fused.items() if not isinstance(module, SplitExperts)}


def choose_layers(model: nn.Module, terms: Terms) -> Selection:
    """The layers of the terms, none of them compressed; the budget and the model's numbers are checked too."""
    selection = select_layers(model, terms.select, grouped=terms.takes_groups, reads_inputs=terms.reads_inputs)
    for path, layer in selection.chosen.items():
        refuse_compressed(path, layer)
    check_budget(terms.steps, terms.keep)
    if terms.importance and terms.text is None:
        raise ValueError("importance is measured on text; give calibrate='stdlib' or a file")
    check_numbers(model)
    return selection


def layers_of_plan(model: nn.Module, plan: Plan) -> Selection:
    """The layers of a plan; refused where the model has others."""
    present = dict(model.named_modules())
    missing = [path for path in plan.selected if path not in present]
    if missing:
        raise ValueError(f"the plan is for another model: this one has no {', '.join(missing[:3])}")
    return Selection({path: present[path] for path in plan.selected}, plan.left)
