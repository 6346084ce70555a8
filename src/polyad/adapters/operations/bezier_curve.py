"""A curve of low loss between two solutions: two trainings of one model, or two adapters of one method and shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method


@method(
    "operation",
    name="bezier_curve",
    example={
        "arguments": lambda g: _draw_ends(g),
        "call": lambda **ends: _points(BezierCurve(**ends)),
        "changes": ("parameters",),
        "off": lambda points, **ends: _distance(points, **ends),
    },
    papers=(
        Paper(
            "Garipov, Izmailov, Podoprikhin, Vetrov, Wilson",
            2018,
            "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs",
            "arXiv:1802.10026",
        ),
    ),
)
class BezierCurve:
    """``θ(r) = (1 - r)² θ₀ + 2 r (1 - r) θ_m + r² θ₁`` for r in [0, 1], with θ_m learned so that every θ(r) is good.

    ``parameters`` are the live ones, by name, which ``move`` sets to a point; ``first`` and ``last`` are the two ends
    under the same names and shapes. For whole models they are ``dict(model.named_parameters())``; for adapters
    ``Adapters.named_parameters(name)`` of three of one method and shape, of which the first is the one that moves
    and can then be merged, saved and averaged as any other. θ_m starts in the middle of the ends, which are copied.
    Buffers that depend on the parameters (running statistics) are the caller's to measure again at a point.

    >>> from polyad.adapters import Adapters, LoRA
    >>> host = Adapters(nn.Sequential(nn.Linear(3, 2)))
    >>> _ = [host.attach(n, "*", LoRA, rank=1, seed=i) for i, n in enumerate(("one", "other", "between"))]
    >>> curve = BezierCurve(*(host.named_parameters(n) for n in ("between", "one", "other")))
    >>> curve.move(1.0)
    >>> bool((host.of("between")["0"].A == host.of("other")["0"].A).all())
    True
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], first: Mapping[str, Tensor], last: Mapping[str, Tensor]
    ) -> None:
        for name, end in (("first", first), ("last", last)):
            if end.keys() != parameters.keys():
                other = sorted(end.keys() ^ parameters.keys())
                raise ValueError(f"{name} and parameters do not name the same tensors: {other[:3]} are in one alone")
            for key, tensor in end.items():
                if tensor.shape != parameters[key].shape:
                    shape, wanted = tuple(tensor.shape), tuple(parameters[key].shape)
                    raise ValueError(
                        f"{key} has the shape {shape} in {name} and {wanted} in parameters; they must agree"
                    )
                _check.finite(f"{key} of {name}", tensor.detach())
        self.parameters = dict(parameters)
        self.first = {key: tensor.detach().clone() for key, tensor in first.items()}
        self.last = {key: last[key].detach().clone() for key in first}
        self.middle = {key: nn.Parameter((one + self.last[key]) / 2) for key, one in self.first.items()}

    def point(self, r: float) -> dict[str, Tensor]:
        """The parameters at r."""
        if not 0 <= r <= 1:
            raise ValueError(f"r={r} is no point of the curve; give a number from 0 (the first end) to 1 (the last)")
        shares = (1 - r) ** 2, 2 * r * (1 - r), r**2
        ends = ((self.first[k], self.middle[k].detach(), self.last[k]) for k in self.first)
        return {k: sum(s * t for s, t in zip(shares, e, strict=True)) for k, e in zip(self.first, ends, strict=True)}  # pyright: ignore

    @torch.no_grad()
    def move(self, r: float) -> None:
        """Put the live parameters at r."""
        for key, tensor in self.point(r).items():
            self.parameters[key].copy_(tensor)

    def fit(
        self,
        loss: Callable[[int], Tensor],
        *,
        steps: int,
        rate: float = 1e-3,
        generator: Generator | None = None,
        callback: Callback | None = None,
    ) -> list[float]:
        """Learn θ_m by Adam on ``loss(step)`` at a place drawn uniformly for each step; returns the losses.

        The gradient of θ_m is 2 r (1 - r) times that of the live parameters, so that the loss may run the model in
        any way. A step costs one of training the model, and two passes over the parameters.
        """
        live = list(self.parameters.values())
        optimizer = torch.optim.Adam(self.middle.values(), rate)
        losses: list[float] = []
        for step in range(steps):
            r = float(torch.rand((), generator=generator))
            self.move(r)
            value = loss(step)
            if not bool(torch.isfinite(value.detach())):
                raise ValueError(
                    f"the loss of step {step} is {float(value.detach())}; choose a lower rate than {rate}"
                )
            for middle, slope in zip(self.middle.values(), torch.autograd.grad(value, live), strict=True):
                middle.grad = 2 * r * (1 - r) * slope
            optimizer.step()
            losses.append(float(value.detach()))
            if callback is not None:
                callback(step + 1, steps, {"stage": "curve", "loss": losses[-1]})
        return losses


def _draw_ends(generator: Generator) -> dict[str, Any]:
    """A small layer, and two ends with the names and shapes of its parameters."""
    live = nn.Linear(3, 2)
    ends = [
        {name: torch.randn(p.shape, generator=generator) for name, p in live.named_parameters()} for _ in range(3)
    ]
    live.load_state_dict(ends[0])
    return {"parameters": dict(live.named_parameters()), "first": ends[1], "last": ends[2]}


def _points(curve: BezierCurve) -> list[dict[str, Tensor]]:
    """Points at both ends and in the middle, and where the live parameters are once moved to the last."""
    curve.move(1.0)
    return [*[curve.point(r) for r in (0.0, 0.5, 1.0)], {k: p.detach().clone() for k, p in curve.parameters.items()}]


def _distance(
    points: list[dict[str, Tensor]],
    parameters: Mapping[str, nn.Parameter],  # noqa: ARG001
    first: Mapping[str, Tensor],
    last: Mapping[str, Tensor],
) -> float:
    """The distance of a curve that has learned nothing from a straight line, in millionths."""
    middle = {k: (one + last[k]) / 2 for k, one in first.items()}
    pairs = (
        (point[k], expected[k])
        for point, expected in zip(points, (first, middle, last, last), strict=True)
        for k in first
    )
    return max(float((one - other).abs().max()) for one, other in pairs) / 1e-6
