"""The layers of a model that a compression works on, and every check of them and of the model's numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from polyad.compress.draft import refuse_compressed
from polyad.compress.plan_record import Plan
from polyad.compress.terms import Terms
from polyad.models.compressible import LayerSelection, select_layers
from polyad.models.experts import SplitExperts, split_experts
from polyad.models.loading import check_numbers
from polyad.models.surgery import Undo, replace
from polyad.models.twin import Twin


@dataclass(frozen=True)
class Layers:
    """The layers of a compression, why the others are left, and what was done to the model so that they are layers.

    ``split`` are the modules whose experts, in one tensor, became a layer each; ``undo`` takes that back. ``twin`` is
    the copy of the model on which is tried what becomes of a layer.
    """

    selection: LayerSelection
    split: tuple[str, ...]
    twin: Twin
    undo: Undo


def choose_layers(model: nn.Module, terms: Terms, plan: Plan | None) -> Layers:
    """The layers of the terms, none of them compressed, or those of a plan that was made before.

    Experts that stand in one tensor are layers afterwards, where the terms take them. The model's numbers are checked
    too. What is refused leaves the model as it was.
    """
    present = dict(model.named_modules())
    if plan is None:
        splits = split_experts(model) if terms.takes_experts else {}
    else:
        fused = {path: present[path] for path in plan.split if path in present}
        splits = {path: SplitExperts(m) for path, m in fused.items() if not isinstance(m, SplitExperts)}
    undo = replace(model, splits)
    try:
        twin = Twin(model)
        if plan is not None:
            present = dict(model.named_modules())
            missing = [path for path in plan.selected if path not in present]
            if missing:
                raise ValueError(f"the plan is for another model: this one has no {', '.join(missing[:3])}")
            selection = LayerSelection({path: present[path] for path in plan.selected}, plan.left)
            return Layers(selection, tuple(splits), twin, undo)
        grouped, inputs = terms.takes_groups, terms.reads_inputs
        selection = select_layers(model, terms.select, twin, grouped=grouped, reads_inputs=inputs)
        for path, layer in selection.chosen.items():
            refuse_compressed(path, layer)
        if terms.importance and terms.text is None:
            raise ValueError("importance is measured on text; give calibrate='stdlib' or a file")
        check_numbers(model)
    except BaseException:
        undo()
        raise
    return Layers(selection, tuple(splits), twin, undo)
