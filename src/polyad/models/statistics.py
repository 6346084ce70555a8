"""What calibration data says about a model's layers, collected in one streaming pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from polyad import _check
from polyad.models.rows import geometry, input_rows, output_rows

NEEDS = ("second", "mean", "peak", "output_square", "influence")


@dataclass
class Moments:
    """Statistics of one module's input x, and of its output y, over the tokens seen. What was not asked is None.

    ``second`` is E[x xᵀ] of shape (in, in), ``mean`` E[x], ``peak`` the largest |x| of each column,
    ``output_square`` E[y²] of each column, ``influence`` 1 - E[cos(x, y)]; all float32 or better.
    """

    count: int = 0
    second: Tensor | None = None
    mean: Tensor | None = None
    peak: Tensor | None = None
    output_square: Tensor | None = None
    influence: Tensor | None = None
    derived: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """What methods computed of these moments and would otherwise compute again; small things only."""

    def covariance(self) -> Tensor:
        """E[x xᵀ] - E[x] E[x]ᵀ."""
        second, mean = required(self.second, "second"), required(self.mean, "mean")
        return second - torch.outer(mean, mean)


Stats = Mapping[str, Moments]


def combined(first: Stats, second: Stats) -> dict[str, Moments]:
    """The statistics of two parts of the data together. Tensors that were shared stay shared."""
    made: dict[tuple[int, int], Tensor] = {}

    def join(a: Moments, b: Moments, name: str) -> Tensor | None:
        x, y = getattr(a, name), getattr(b, name)
        if x is None or y is None:
            return None
        if (id(x), id(y)) not in made:
            share = b.count / (a.count + b.count)
            made[id(x), id(y)] = torch.maximum(x, y) if name == "peak" else torch.lerp(x, y, share)
        return made[id(x), id(y)]

    return {
        path: Moments(
            a.count + second[path].count, **cast(Any, {name: join(a, second[path], name) for name in NEEDS})
        )
        for path, a in first.items()
    }


def required(value: Tensor | None, need: str) -> Tensor:
    """The statistic, or a sentence that it was not collected."""
    if value is None:
        raise ValueError(f"the statistic {need!r} was not collected; calibrate with a text: calibrate='stdlib'")
    return value


def input_moment(stats: Moments | None, width: int, method: str) -> Tensor:
    """The second moment of a layer's ``width`` inputs, or a sentence why a method cannot use what is there."""
    if stats is None:
        raise ValueError(f"{method} reads the layer's inputs on calibration text; give calibrate='stdlib' or a file")
    second = _check.finite("the second moment", required(stats.second, "second"))
    if tuple(second.shape) != (width, width):
        raise ValueError(
            f"the second moment has shape {tuple(second.shape)}, and the weight takes {width} inputs; collect it "
            "from the layer that the weight is of"
        )
    return second


def collect(
    model: nn.Module,
    needs: Mapping[str, Iterable[str]],
    batches: Iterable[Tensor],
    *,
    callback: Callable[..., Any] | None = None,
) -> dict[str, Moments]:
    """Run ``model`` over batches and collect, by module path, the statistics in ``needs``.

    A batch is what the model takes as its one argument: token ids (batch, tokens) or (tokens,), pictures
    (batch, channels, height, width). The rows of a convolution's input are its patches, as of its kernel's matrix.
    Modules that get the very same tensor (queries, keys and values) share one Moments: it is computed once.
    The output head is not run unless it is asked about. Cost: one forward pass, and for each second moment
    2 in² operations a token. NaN or infinite activations are refused, naming the module.
    """
    asked = {path: frozenset(wanted) for path, wanted in needs.items() if wanted}
    for path, wanted in asked.items():
        if wanted - set(NEEDS):
            raise ValueError(f"{path} needs {sorted(wanted - set(NEEDS))}; there are {', '.join(NEEDS)}")
    watchers = {path: _Watcher(path, wanted, model.get_submodule(path)) for path, wanted in asked.items()}
    body = getattr(model, "base_model", model)
    inside = {path for path, module in model.named_modules() if any(module is m for m in body.modules())}
    run = body if set(asked) <= inside else model
    batches = list(batches)
    if not sum(batch.numel() for batch in batches):
        raise ValueError("the calibration data is empty; give at least one window of tokens")
    shared: list[Any] = [None, None]  # the last input seen and the watcher that took it
    with torch.no_grad(), ExitStack() as hooks:
        for path, watcher in watchers.items():
            module = model.get_submodule(path)
            handle = module.register_forward_hook(watcher.observe(shared), with_kwargs=True)
            hooks.callback(handle.remove)
        for step, batch in enumerate(batches, 1):
            run(batch[None] if batch.ndim == 1 else batch)
            shared[:] = [None, None]
            if callback is not None:
                callback(step, len(batches), {})
    return {path: watcher.moments() for path, watcher in watchers.items()}


class _Watcher:
    """Accumulates sums for one module. Its input's part may be another watcher's, when both see one tensor."""

    def __init__(self, path: str, wanted: frozenset[str], module: nn.Module) -> None:
        self.path, self.wanted = path, wanted
        self.geometry = geometry(module)
        self.sums: dict[str, Tensor] = {}
        self.count = 0  # rows of the input
        self.seen = 0  # rows of the output, which a twin counts itself
        self.normal = False
        self.twin: _Watcher | None = None

    def observe(self, shared: list[Any]) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            x = args[0] if args else next(iter(kwargs.values()))
            self.see_output(x, output[0] if isinstance(output, tuple) else output)
            alike = shared[0] is x and shared[1].geometry == self.geometry
            if alike and shared[1].wanted >= self.wanted - {"output_square", "influence"}:
                self.twin = shared[1]
            else:
                self.see_input(x)
                shared[:] = [x, self]

        return hook

    def see_input(self, x: Tensor) -> None:
        rows = input_rows(x, self.geometry)
        rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
        self.count += len(rows)
        if "second" in self.wanted:
            total = self.sums.setdefault("second", rows.new_zeros(rows.shape[1], rows.shape[1]))
            total.addmm_(rows.mT, rows)
        if "mean" in self.wanted:
            self.add("mean", rows.sum(0))
        if "peak" in self.wanted:
            peak = rows.abs().amax(0)
            self.sums["peak"] = torch.maximum(self.sums.get("peak", peak), peak)

    def see_output(self, x: Tensor, y: Tensor) -> None:
        rows = output_rows(y, self.geometry)
        self.seen += len(rows)
        if "output_square" in self.wanted:
            self.add("output_square", rows.float().square().sum(0))
        if "influence" in self.wanted:
            cosine = nn.functional.cosine_similarity(x.float(), y.float(), dim=-1)
            self.add("influence", (1 - cosine).sum())

    def add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def moments(self) -> Moments:
        source = self.twin or self
        source.normalise()
        self.normalise()
        inputs = {k: v for k, v in source.sums.items() if k in ("second", "mean", "peak") and k in self.wanted}
        outputs = {k: v for k, v in self.sums.items() if k in ("output_square", "influence")}
        found = {**inputs, **outputs}
        for value in found.values():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"the activations of {self.path} hold NaN or infinite numbers on the calibration text; "
                    "its weights may be damaged, or the dtype too narrow: try --dtype float32"
                )
        return Moments(source.count, **cast(Any, found))

    def normalise(self) -> None:
        """Sums to means, in place and once, so that twins share one tensor."""
        if not self.normal:
            for name, value in self.sums.items():
                if name != "peak":
                    value.div_(self.seen)
            self.normal = True
