"""The contract of a measure: what every function owes that says numbers of a tensor or of a model.

It is called with the card's ``example``. Four entries are for the contract alone: ``x``, a shape or a function of a
generator that draws the tensor; ``invariant``, names of ``INVARIANCES`` that the measure states; ``ordered``, true
where permuting x along its first axis permutes every axis of the result; and ``range``, the least and the greatest
value. A measure of a model gets a small decoder.

>>> from polyad.cache import token_alignment
>>> from polyad._card import card
>>> invariance(card(token_alignment))
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.testing._contract import normal, seeded
from polyad.testing._decomposition import drawn
from polyad.testing._refusals import assert_refused, result_or_refusal
from polyad.testing._trial_models import decoder

OWN = ("x", "invariant", "ordered", "range")
INVARIANCES: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "scale": tuple(lambda x, factor=factor: x * factor for factor in (3.0, 1e-30, 1e30)),
    "sign": (lambda x: -x,),
    "shift": (lambda x: x + 1.5,),
    "rotation": (lambda x: x @ _rotation(x),),
    "rows": (lambda x: x[..., torch.randperm(x.shape[-2], generator=seeded(4)), :],),
    "columns": (lambda x: x[..., torch.randperm(x.shape[-1], generator=seeded(4))],),
}
"""Changes of x that leave a measure as it is, where it says so; "rotation" is of the last axis."""


def _rotation(x: Tensor) -> Tensor:
    return torch.linalg.qr(normal(x.shape[-1], x.shape[-1], dtype=torch.float64, seed=5)).Q.to(x.dtype)


def call_measure(card: Card, x: Any) -> Tensor:
    """All numbers that the measure says of x, in float64; those of a mapping in the order of its names."""
    options = {name: value for name, value in card.example.items() if name not in OWN}
    return _numbers(card.function(x, **options))


def _numbers(outcome: Any) -> Tensor:
    if isinstance(outcome, Mapping):
        return torch.cat([_numbers(outcome[name]).flatten() for name in sorted(outcome)])
    return outcome.detach().double() if isinstance(outcome, Tensor) else torch.as_tensor(outcome, dtype=torch.float64)


def subject(card: Card, dtype: torch.dtype = torch.float64) -> Any:
    """The tensor that the card's example draws, or a decoder."""
    if next(iter(inspect.signature(card.function).parameters)) == "model":
        return decoder().to(dtype)
    return drawn(card, dtype)


def repeatable(card: Card) -> None:
    """The same numbers at every call, finite and in the range that is stated; what is measured stays as it is."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = subject(card, dtype)
        before = _state(x)
        first = result_or_refusal(card, f"{dtype}", lambda x=x: call_measure(card, x))
        if first is None:
            assert dtype == torch.bfloat16, f"{card.name} refuses {dtype}"
            continue
        assert torch.equal(first, call_measure(card, x)), f"{card.name} called twice says two things"
        assert bool(torch.isfinite(first).all()), f"{card.name} of {dtype} says NaN or infinite numbers"
        same = all(torch.equal(old, new) for old, new in zip(before, _state(x, copied=False), strict=True))
        assert same, f"{card.name} changed what it measured"
        low, high = card.example.get("range", (-math.inf, math.inf))
        slack = max(4 * torch.finfo(dtype).eps, 1e-6)
        inside = low - slack <= float(first.min()) and float(first.max()) <= high + slack
        assert inside, f"{card.name} says {float(first.min()):.6g} to {float(first.max()):.6g}, not {low} to {high}"


def _state(x: Any, *, copied: bool = True) -> list[Tensor]:
    tensors = [x] if isinstance(x, Tensor) else list(x.state_dict().values())
    return [tensor.clone() for tensor in tensors] if copied else tensors


def precision(card: Card) -> None:
    """Single precision says what double precision says."""
    double, single = (call_measure(card, subject(card, dtype)) for dtype in (torch.float64, torch.float32))
    off = float((single - double).norm() / double.norm().clamp(min=1e-30))
    assert off < 1e-3, f"{card.name} in float32 is off by {off:.3g} from float64"


def invariance(card: Card) -> None:
    """The changes of x that the example names leave the measure as it is."""
    for name in card.example.get("invariant", ()):
        for dtype, limit in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
            x = subject(card, dtype)
            plain = call_measure(card, x)
            for change in INVARIANCES[name]:
                off = float((call_measure(card, change(x)) - plain).norm() / plain.norm().clamp(min=1e-30))
                assert off < limit, f"{card.name} says that it is invariant to {name}, and moves by {off:.3g}"


def order(card: Card) -> None:
    """Permuting x along its first axis permutes every axis of the result, where the example says so."""
    if not card.example.get("ordered"):
        return
    x = subject(card)
    order = torch.randperm(len(x), generator=seeded(6))
    plain, outcome = call_measure(card, x), call_measure(card, x[order])
    for axis in range(plain.ndim):
        plain = plain.index_select(axis, order)
    off = float((outcome - plain).norm() / plain.norm())
    assert off < 1e-6, f"{card.name} of x in another order is off by {off:.3g} from its result in that order"


def layout(card: Card) -> None:
    """Views with other strides and a tensor that requires a gradient give what plain tensors give."""
    x = subject(card)
    if not isinstance(x, Tensor):
        return
    plain = call_measure(card, x)
    views = {"strided": torch.stack((x, x), -1)[..., 0], "transposed": x.mT.contiguous().mT}
    for name, view in (views | {"requires grad": x.clone().requires_grad_()}).items():
        off = float((call_measure(card, view) - plain).norm() / plain.norm().clamp(min=1e-30))
        assert off < 1e-6, f"{card.name} of the same numbers ({name}) is off by {off:.3g}"


def refusals(card: Card) -> None:
    """All but tensors of finite real numbers and enough dimensions are refused with a sentence that names x."""
    x = subject(card)
    if not isinstance(x, Tensor):
        return
    nan, inf = x.clone(), x.clone()
    nan.view(-1)[1], inf.view(-1)[-1] = math.nan, math.inf
    wrong = {"NaN": nan, "infinity": inf, "integers": x.long(), "complex": x.to(torch.complex64), "none": x[:0]}
    for what, tensor in (wrong | {"a number": x.flatten()[0], "a list": x.tolist()}).items():
        assert_refused(card, what, lambda tensor=tensor: call_measure(card, tensor), "x ")


CHECKS = (repeatable, precision, invariance, order, layout, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "INVARIANCES", "call_measure", "invariance", "layout", "order", "precision", "refusals",
    "repeatable", "subject",
]  # fmt: skip
