"""Application of a plan to a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from polyad._callback import Callback
from polyad._types import check_type
from polyad.compress.compression import Compression
from polyad.compress.plan_record import Plan
from polyad.compress.terms import Terms
from polyad.models.surgery import Undo


def apply(model: Any, plan: Plan, *, callback: Callback | None = None) -> Any:
    """Replace the model's layers by what the plan says, in place, and return the model.

    Steps run in order; each sees what the earlier ones made. All solving is done before the first layer is
    replaced, so an error leaves the model as it was.
    """
    apply_with_undo(model, plan, callback=callback)
    return model


def apply_with_undo(model: Any, plan: Plan, *, callback: Callback | None = None) -> Undo:
    """``apply``, but return a function that undoes it exactly."""
    check_type("model", model, nn.Module, "give the model itself, as polyad.load returns it")
    check_type("plan", plan, Plan, "give what polyad.plan(model, ...) returns")
    terms = Terms(plan.steps, plan.keep, plan.count, seed=plan.seed)
    with Compression(model, terms, plan=plan, callback=callback) as compression:
        compression.check_room()
        return compression.replace(plan)
