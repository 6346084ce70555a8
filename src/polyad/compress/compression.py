"""One model under one recipe, from its items to what takes their place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Generator

from polyad._callback import Callback
from polyad.allocate import Curve
from polyad.compress.budget import Budget, name_stage, relative_curves
from polyad.compress.costs import Prices
from polyad.compress.coverage import coverage_line
from polyad.compress.draft import Draft
from polyad.compress.importance import item_importance
from polyad.compress.influence import layer_needs, with_influence
from polyad.compress.items import items
from polyad.compress.layers import choose_layers
from polyad.compress.plan_record import Plan
from polyad.compress.statistics_store import StatisticsStore, gather_statistics
from polyad.compress.terms import Terms
from polyad.data.calibration import calibration
from polyad.models.calibration.room import refuse_too_large
from polyad.models.replacement import Replacement, merge_replacements, put_in_place
from polyad.models.surgery import Undo
from polyad.statistics import Moments


class Compression:
    """A model under the terms of a plan: its layers, the items of each step, their statistics, curves and sizes.

    Made once, with every check of the model. Then ``decide`` gives the plan, and ``replace`` solves the items at
    their sizes and puts the result in place. As a context it leaves the model as it was where ``replace`` was not
    reached.
    ``plan`` is one that was decided on before, on a model of the same layers.
    """

    def __init__(
        self, model: Any, terms: Terms, *, plan: Plan | None = None, callback: Callback | None = None
    ) -> None:
        self.model, self.terms, self.callback = model, terms, callback
        chosen = choose_layers(model, terms, plan)
        self.layers, self.left, self.split = dict(chosen.selection.chosen), chosen.selection.left, chosen.split
        self._undo = chosen.undo
        try:
            self.budget = self._limit()
            self.text = calibration(model, terms.text, count=terms.windows) if terms.text is not None else None
            self._clock = time.perf_counter()
            self._undo = put_in_place(model, self._rescaled_weights()).then(self._undo)
            names = plan.sizes if plan is not None else [{}] * len(terms.steps)
            self.items = [
                items(model, step, self.layers, chosen.twin, some)
                for step, some in zip(terms.steps, names, strict=True)
            ]
        except BaseException:
            self._undo()
            raise

    def __enter__(self) -> Compression:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo()

    def _limit(self) -> Budget | None:
        """The budget, where it sizes a step."""
        terms = self.terms
        if terms.sized_step is None or terms.keep is None:
            return None
        return Budget(self.model, self.layers, terms.keep, terms.count, terms.steps[terms.sized_step + 1 :])

    def _rescaled_weights(self) -> Replacement:
        """The weights after the recipe's rescalings; drawn from the seed alone, so always the same."""
        return merge_replacements(
            step.card.function(self.model, generator=Generator().manual_seed(self.terms.seed), **step.options)
            for step in self.terms.steps
            if step.kind == "rescale"
        )

    def check_room(self, needs: Mapping[str, set[str]] | None = None) -> None:
        """Refuse solves, and statistics that are still to be gathered, for which there is no memory."""
        solves = {item.name: item.holds(self.model) for its in self.items for item in its}
        refuse_too_large(self.model, needs or {}, solves)

    def decide(self, store: StatisticsStore | None = None) -> Plan:
        """The plan: statistics, and where the budget sizes a step its curves, importances and allocation.

        ``store`` keeps finished statistics.
        """
        terms = self.terms
        needs = self._needs()
        self.check_room(needs)
        stats = gather_statistics(self.model, needs, self.text, store, self._report("statistics"))
        seconds = {"statistics": time.perf_counter() - self._clock}
        sizes = [{item.name: step.size for item in its} if step.size is not None else {}
                 for step, its in zip(terms.steps, self.items, strict=True)]  # fmt: skip
        curves: dict[str, Curve] = {}
        weights: dict[str, float] = {}
        if terms.sized_step is not None and self.budget is not None:
            curves = self._curves(terms.sized_step, self.budget.prices, stats)
            allowed = self.budget.left_for(terms.steps[terms.sized_step], self.items[terms.sized_step], curves)
            weights = self._importance(terms.sized_step, curves, stats)
            scaled = {n: curve.weigh(weights.get(n, 1.0)) for n, curve in relative_curves(curves).items()}
            sizes[terms.sized_step] = with_influence(terms.chooser, self.model, scaled, stats)(scaled, allowed)
        seconds["all"] = time.perf_counter() - self._clock
        texts = self.text.digests if self.text is not None else {}
        used = tuple(path for path in self.split if any(layer.startswith(f"{path}.") for layer in self.layers))
        return Plan(terms.steps, tuple(self.layers), tuple(sizes), terms.keep, terms.count, curves, weights, texts,
                    stats, terms.seed, seconds, self.left, used,
                    coverage_line(self.model, self.layers, self.left))  # fmt: skip

    def _report(self, stage: str) -> Callback:
        return name_stage(self.callback, stage)

    def _needs(self) -> dict[str, set[str]]:
        """The statistics that the items and the allocation read, by path."""
        needs = layer_needs(self.model, self.terms.chooser) if self.terms.sized_step is not None else {}
        for item in (item for its in self.items for item in its):
            for path, names in item.needs().items():
                needs.setdefault(path, set()).update(names)
        return needs

    def _curves(self, step: int, prices: Prices, stats: Mapping[str, Moments]) -> dict[str, Curve]:
        curves: dict[str, Curve] = {}
        draft, report = Draft(self.model), self._report("curves")
        for number, item in enumerate(self.items[step], 1):
            curve = item.curve(draft, stats, prices)
            curves[item.name] = item.without_slow(curve, draft) if self.terms.avoid_slow else curve
            report(number, len(self.items[step]), {})
        return curves

    def _importance(self, step: int, curves: Mapping[str, Curve], stats: Mapping[str, Moments]) -> dict[str, float]:
        if not self.terms.weighs or self.text is None:
            return {}
        return item_importance(self.model, self.items[step], curves, stats, self.text, self._report("importance"))

    def replace(self, plan: Plan) -> Undo:
        """Solve every item at its size, each step on what the earlier ones made, and put the result in place.

        All solving is done before the first layer is replaced.
        """
        draft = self._solve(plan)
        undo = draft.replace()
        sized = self.terms.sized_step
        try:
            if self.budget is not None and sized is not None:
                layers = [self.model.get_submodule(path) for path in self.layers]
                self.budget.check_met(layers, self.terms.steps[sized].card.name)
        except ValueError:
            undo()
            raise
        undo = undo.then(self._undo)
        self._undo = Undo(self.model, {})
        return undo

    def _solve(self, plan: Plan) -> Draft:
        draft = Draft(self.model)
        for step, its, sizes in zip(plan.steps, self.items, plan.sizes, strict=True):
            report = self._report(step.card.name)
            for number, item in enumerate((item for item in its if item.name in sizes), 1):
                replacement = item.solve(draft, plan.stats, sizes[item.name])
                if replacement is not None:
                    draft.put(replacement, item.block)
                report(number, len(sizes), {})
            draft.steps.append(step)
        for path in plan.selected:
            moments = plan.stats.get(path)
            if moments is not None and moments.mean is not None:
                draft.keep_mean(path, moments.mean)
        return draft
