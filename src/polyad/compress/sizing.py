"""What the items of a step cost and lose at each size, and how much each of them matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from polyad import _check
from polyad.allocate import Curve
from polyad.allocate.curve import WHOLE
from polyad.compress import costs, solving
from polyad.compress.importance import changes, divergences, predicts
from polyad.compress.recipe import Step
from polyad.data.calibration import Calibration
from polyad.evaluation.clock import break_even
from polyad.models.blocks import Block, blocks
from polyad.models.compressible import CONVOLUTIONS, as_matrix
from polyad.models.replacement import Replacement, modules

PROBE_SHARE = 0.5
"""The share of an item's cost to which it alone is cut when its importance is measured."""


def blocks_within(model: nn.Module, step: Step, targets: Mapping[str, nn.Module]) -> list[Block]:
    """The blocks of the step's rules whose matrices are all selected."""
    found = [b for b in blocks(model, step.rules) if all(path in targets for path in b.roles.values())]
    if not found:
        raise ValueError(
            f"{step.card.name} cuts matrices together ({', '.join(step.rules)}), and the selection holds no block "
            "whole; select '*mlp*' or '*attn*', or leave the selection out"
        )
    return found


def weight_of(model: nn.Module, path: str) -> Tensor:
    """The weight of a linear layer or a convolution as a matrix, checked."""
    weight: Any = model.get_submodule(path).weight
    if not isinstance(weight, Tensor):
        raise ValueError(
            f"{path} is compressed already (it holds {weight()!r}); compress the original, with both methods as the "
            "steps of one recipe, or leave the layer out of the selection"
        )
    return _check.finite(f"{path}.weight", as_matrix(weight.detach()))


def item_curves(
    model: Any, step: Step, targets: Any, stats: Any, count: str, price: costs.Price, callback: Any
) -> dict[str, Curve]:
    """The choices of every item of a step, by name: layers by path, blocks by PATH:KIND."""
    found: dict[str, Curve] = {}
    report = named(callback, "curves")
    if step.kind == "group":
        parts = blocks_within(model, step, targets)
        for number, block in enumerate(parts, 1):
            weights = solving.parameters_of(model, block.roles, {})
            found[block.name] = costs.block_curve(step, block, weights, stats, price)
            report(number, len(parts), {})
        return found
    for number, path in enumerate(targets, 1):
        found[path] = costs.layer_curve(step, weight_of(model, path), stats.get(path), count, price)
        report(number, len(targets), {})
    return found


def quick(curves: Mapping[str, Curve], step: Step, targets: Mapping[str, Any]) -> dict[str, Curve]:
    """The curves without the ranks at which two factors are slower than the dense layer on this machine."""
    if step.kind == "quantize":
        raise ValueError(
            "avoid_slow leaves nothing to choose: quantised layers are dequantised at every call and never faster "
            "than dense ones here; leave it out, or use a factorisation"
        )
    if step.kind == "group":  # narrower dense layers are never slower
        return dict(curves)
    found: dict[str, Curve] = {}
    for name, curve in curves.items():
        weight = targets[name].weight
        if isinstance(targets[name], CONVOLUTIONS):
            raise ValueError(f"avoid_slow times linear layers, and {name} is a convolution; leave avoid_slow out")
        kept = (curve.sizes == WHOLE) | (curve.sizes <= break_even(tuple(weight.shape), weight.dtype))
        found[name] = Curve(curve.sizes[kept], curve.costs[kept], curve.errors[kept], curve.sweep)
    return found


def item_importance(
    model: Any, step: Step, targets: Any, curves: Any, stats: Any, text: Calibration, callback: Any
) -> dict[str, float]:
    """For every item, the divergence that cutting it alone to half causes, over its own error at that size."""
    places = {name: curve.affordable(PROBE_SHARE * curve.whole) for name, curve in curves.items()}
    if step.kind == "group":
        parts = {block.name: block for block in blocks_within(model, step, targets)}

        def make(name: str) -> dict[str, nn.Module]:
            block, size = parts[name], int(curves[name].sizes[places[name]])
            weights = solving.parameters_of(model, block.roles, {})
            made = solving.solve_block(step, size, block, weights, stats)
            return modules(model, made or Replacement({}), [block])
    else:

        def make(name: str) -> dict[str, nn.Module]:
            size = int(curves[name].sizes[places[name]])
            made = solving.solve_layer(step, size, weight_of(model, name), None, stats.get(name))
            return modules(model, Replacement({name + ".weight": made} if made is not None else {}))

    items = {n: (lambda n=n: make(n)) for n, p in places.items() if curves[n].errors[p] > 0}
    measure = divergences if predicts(model) else changes
    found = measure(model, items, text.probe, callback=named(callback, "importance"))
    shares = relative(curves)
    least = 1e-3 * float(np.median(list(found.values()))) if found else 0.0
    return {n: max(kl, least) / float(shares[n].errors[places[n]]) for n, kl in found.items()}


def relative(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Errors as shares of each item's error at its cheapest choice, so that units cancel."""
    return {name: curve.weigh(1 / max(float(curve.errors[0]), 1e-300)) for name, curve in curves.items()}


def allowed_cost(
    model: Any, step: Step, targets: Any, curves: Mapping[str, Curve], keep: float, count: str, price: costs.Price
) -> float:
    """What the items may cost together: the budget less what the recipe cannot touch."""
    if count == "flops" and any(isinstance(module, CONVOLUTIONS) for module in targets.values()):
        raise ValueError(
            "budget='flops' counts a token's operations, and those of a convolution depend on the size of what it is "
            "given; choose parameters or bytes"
        )
    total = sum(costs.layer_cost(module, count) for module in targets.values())
    items = blocks_within(model, step, targets) if step.kind == "group" else []
    touched = {path for block in items for path in block.roles.values()} if items else set(targets)
    head = model.get_output_embeddings() if count == "flops" and hasattr(model, "get_output_embeddings") else None
    extra = costs.layer_cost(head, count) if head is not None else 0.0
    fixed = extra + sum(price(tuple(targets[path].weight.shape)) for path in targets if path not in touched)
    least = sum(float(curve.costs[0]) for curve in curves.values())
    if fixed + least > keep * (total + extra) * (1 + 1e-12):
        if step.kind == "quantize" and count == "parameters":
            raise ValueError(
                f"keep={keep:g} of the parameters cannot be met by {step.card.name}: a number in few bits still "
                "counts as one; count bytes instead: budget='bytes' (--budget bytes)"
            )
        raise ValueError(
            f"keep={keep:g} of the {count} cannot be met: cut as far as it goes, the selection keeps "
            f"{(fixed + least) / (total + extra):.4f} of them; keep at least that much"
        )
    return keep * (total + extra) - fixed


def named(callback: Callable[..., Any] | None, stage: str) -> Callable[..., Any]:
    """A callback that adds the stage's name to what it passes on."""

    def report(step: int, total: int | None, values: Mapping[str, Any]) -> None:
        if callback is not None:
            callback(step, total, {"stage": stage, **values})

    return report
