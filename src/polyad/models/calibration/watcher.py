"""The hooks that sum one module's statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from polyad.models.calibration.rows import geometry, input_rows, output_rows
from polyad.models.calibration.statistic import STATISTICS, widen
from polyad.statistics import Moments


class InputsPartedError(ValueError):
    """Raised where two modules got one tensor at one call and two at another, so that their sums differ."""


class Watcher:
    """Sums one module's statistics. Those of its input may be another watcher's, where both always get one tensor."""

    def __init__(self, path: str, names: frozenset[str], module: nn.Module) -> None:
        self.path, self.names = path, names
        self.geometry = geometry(module)
        self.totals: dict[str, Tensor] = {}
        self.calls = 0
        self.rows = {"input": 0, "output": 0}
        self.leader: Watcher | None = None
        self.finished: dict[str, Tensor] | None = None

    def attach(self, module: nn.Module, last: list[tuple[Watcher, Tensor, int]] | None) -> list[Any]:
        """Hook the module. ``last`` holds the last input, its version and who summed it; None: nothing is shared."""
        inputs: list[Tensor] = []

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = _first_tensor(self.path, (*args, *kwargs.values()))
            if "both" in self._reads():
                inputs.append(x.clone())  # the module may write into it
            self._take_input(x, last)

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            self._take_output(inputs.pop() if inputs else None, _first_tensor(self.path, (output,)))

        handles = [module.register_forward_pre_hook(before, with_kwargs=True)]
        if self._reads() - {"input"}:
            handles.append(module.register_forward_hook(after))
        return handles

    def moments(self) -> Moments:
        """The statistics of all rows, of which there are some; finite, or refused."""
        source = self.leader or self
        if source.calls != self.calls:
            raise InputsPartedError
        values = {**source._finish(), **self._finish()}
        for value in values.values():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"the activations of {self.path} hold NaN or infinite numbers on the calibration text; "
                    "its weights may be damaged, or the dtype too narrow: try --dtype float32"
                )
        return Moments(
            source.rows["input"] or self.rows["output"], **{n: v for n, v in values.items() if n in self.names}
        )

    def _reads(self) -> set[str]:
        return {STATISTICS[name].reads for name in self.names}

    def _inputs(self) -> set[str]:
        return {name for name in self.names if STATISTICS[name].reads == "input"}

    def _take_input(self, x: Tensor, last: list[tuple[Watcher, Tensor, int]] | None) -> None:
        self.calls += 1
        for other, tensor, version in last or ():
            alike = tensor is x and version == x._version and other is not self and other.geometry == self.geometry
            covers = other.names >= self._inputs() and other.calls == self.calls
            if alike and covers and (self.calls == 1 or self.leader is other):
                self.leader = other
                return
        if self.leader is not None:
            raise InputsPartedError
        rows = widen(input_rows(x, self.geometry)) if self._inputs() else x[:0]
        self.rows["input"] += len(rows)
        self._add("input", rows, rows.new_empty(0))
        if last is not None:
            last[:] = [(self, x, x._version)]

    def _take_output(self, x: Tensor | None, y: Tensor) -> None:
        outputs = widen(output_rows(y, self.geometry))
        self.rows["output"] += len(outputs)
        self._add("output", outputs.new_empty(0), outputs)
        if x is not None:
            self._add("both", widen(input_rows(x, self.geometry)), outputs)

    def _add(self, kind: str, x: Tensor, y: Tensor) -> None:
        for name in self.names:
            if STATISTICS[name].reads == kind:
                self.totals[name] = STATISTICS[name].update(self.totals.get(name), x, y)

    def _finish(self) -> dict[str, Tensor]:
        """Totals to statistics, once, so that watchers of one input share the tensors."""
        if self.finished is None:
            self.finished = {
                name: STATISTICS[name].finish(
                    total, self.rows["input" if STATISTICS[name].reads == "input" else "output"]
                )
                for name, total in self.totals.items()
            }
        return self.finished


def _first_tensor(path: str, values: tuple[Any, ...]) -> Tensor:
    """The first tensor of floats, looked for in tuples too."""
    for value in values:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
        if isinstance(value, tuple | list) and value:
            return _first_tensor(path, tuple(value))
    raise ValueError(f"{path} takes or gives no tensor of floats, so nothing can be measured of it; leave it out")
