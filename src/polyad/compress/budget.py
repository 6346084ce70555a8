"""The budget of a plan: the sizes of a step's items, so that what is left of the selected layers costs a share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from polyad._callback import Callback
from polyad.allocate import Curve
from polyad.compress.costs import Prices, layer_cost
from polyad.compress.item import Item
from polyad.compress.recipe import Step
from polyad.models.layer_matrices import CONVOLUTIONS, matrix_shape


def relative_curves(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Errors as shares of each item's error at its cheapest choice, so that units cancel."""
    return {name: curve.weigh(1 / max(float(curve.errors[0]), 1e-300)) for name, curve in curves.items()}


class Budget:
    """A share ``keep`` of what the selected layers cost, with the output head where operations are counted.

    ``prices`` are what matrices cost once the quantisations among the ``later`` steps were applied.
    """

    def __init__(
        self, model: nn.Module, targets: Mapping[str, nn.Module], keep: float, count: str, later: Iterable[Step] = ()
    ) -> None:
        self.keep, self.count, self.targets = keep, count, targets
        self.prices = Prices(count, later)
        if count == "flops" and any(isinstance(module, CONVOLUTIONS) for module in targets.values()):
            raise ValueError(
                "budget='flops' counts a token's operations, and those of a convolution depend on the size of its "
                "input; choose parameters or bytes"
            )
        head: Any = None
        if count == "flops" and hasattr(model, "get_output_embeddings"):
            head = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
        self.head = layer_cost(head, count) if head is not None else 0.0
        self.whole = sum(layer_cost(module, count) for module in targets.values()) + self.head

    def left_for(self, step: Step, items: Iterable[Item], curves: Mapping[str, Curve]) -> float:
        """The cost that the items of a step may have together: the budget less what the recipe leaves as it is."""
        touched = {path for item in items for path in item.paths}
        others = (module for path, module in self.targets.items() if path not in touched)
        fixed = self.head + sum(self.prices.dense(matrix_shape(layer)) for layer in others)
        least = fixed + sum(float(curve.costs[0]) for curve in curves.values())
        if least > self.keep * self.whole * (1 + 1e-12):
            if step.kind == "quantize" and self.count == "parameters":
                raise ValueError(
                    f"keep={self.keep:g} of the parameters cannot be met by {step.card.name}: a number in few bits "
                    "still counts as one; count bytes instead: budget='bytes' (--budget bytes)"
                )
            raise ValueError(
                f"keep={self.keep:g} of the {self.count} cannot be met: cut as far as it goes, the selection keeps "
                f"{least / self.whole:.4f} of them; keep at least that much"
            )
        return self.keep * self.whole - fixed

    def check_met(self, layers: Iterable[nn.Module], method: str) -> None:
        """Refuse layers that cost more than the budget: their method makes something else than its card says."""
        share = (sum(layer_cost(layer, self.count) for layer in layers) + self.head) / self.whole
        if share > self.keep * (1 + 1e-9):
            raise ValueError(
                f"{method} was to keep {self.keep:g} of the selected {self.count} and keeps {share:.4f}: it makes "
                "more than its card's template says; nothing was changed. Give it a size of its own"
            )


def name_stage(callback: Callback | None, stage: str) -> Callback:
    """A callback that adds the stage's name to what it passes on."""

    def report(step: int, total: int | None, values: Mapping[str, Any]) -> None:
        if callback is not None:
            callback(step, total, {"stage": stage, **values})

    return report
