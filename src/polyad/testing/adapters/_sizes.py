"""Checks of an adapter's arguments: the factor that ``alpha`` is, and the limits of the size."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.adapters import Adapter
from polyad.testing._refusals import assert_refused
from polyad.testing.adapters._subject import assert_near, layers, model_with_adapters

SHAPE = (12, 24)
SIZES = 40
"""Sizes that are tried: more than such a weight can have."""


def alpha(card: Card, kind: str) -> None:
    """Twice the ``alpha`` is twice the change (for ``inner_alpha`` in the example, where what follows is not linear,
    another one), and none given is its default, or as much as the rank, by which it is divided: a factor of one."""
    argument = inspect.signature(card.function).parameters.get("alpha")
    if argument is None:
        return
    rank = card.example.get("rank")
    plain = argument.default if argument.default is not None else rank
    assert plain is not None, f"{card.name} takes alpha, by default None, and its example no rank to take for it"
    changes = {factor: _change(card, kind, {"alpha": factor * plain}) for factor in (1, 2, -1)}
    unasked = _change(card, kind, {})
    for key, change in changes[1].items():
        assert_near(unasked[key], change, torch.float64, f"{card.name} without alpha, and with {plain}, on {key}")
        for factor in (2, -1):
            scaled = changes[factor][key]
            if not card.example.get("inner_alpha"):
                assert_near(scaled, factor * change, torch.float64, f"{card.name} with {factor} times alpha on {key}")
            assert not torch.allclose(scaled, change), (
                f"{card.name} gives the same with {factor} times alpha on {key}"
            )
    _assert_factor(card, kind, 1 if argument.default is None else argument.default)


def _change(card: Card, kind: str, options: dict[str, Any]) -> dict[str, Tensor]:
    """The change of every weight that a moved adapter makes, with these arguments beside the example's."""
    changed = dataclasses.replace(card, example={**card.example, **options})
    model, adapters, _ = model_with_adapters(changed, kind, dtype=torch.float64)
    before = {name: t.clone() for name, t in model.state_dict().items() if ".adapters" not in name}
    adapters.merge()
    after = model.state_dict()
    return {name: after[name] - t for name, t in before.items() if not torch.equal(after[name], t)}


def _assert_factor(card: Card, kind: str, expected: float) -> None:
    """Without ``alpha``, the update is added this many times, and so are those of adapters that it is made of."""
    model, _, _ = model_with_adapters(card, kind)
    factors = {type(part).__name__: part.scale for part in model.modules() if isinstance(part, Adapter)}
    off = {name: factor for name, factor in factors.items() if factor != expected}
    assert not off, f"{card.name} without alpha multiplies its update by {off}, not {expected}"


def sizes(card: Card, kind: str) -> None:
    """The argument in ``sized_by`` is refused below 1, and above a limit, by a sentence of its value and of the
    limit, which is a size that it can have, and the shorter side where it is called so."""
    name = card.function.sized_by
    example = card.example.get(name)
    if kind != layers(card)[0] or not isinstance(example, int):
        return
    arguments = {key: value for key, value in card.example.items() if key not in ("of", "identity", "inner_alpha")}
    for shape in (SHAPE, SHAPE[::-1]):
        _assert_limit(card, name, functools.partial(card.function, shape, **arguments))


def _assert_limit(card: Card, name: str, make: Callable[..., Any]) -> None:

    def refusal(size: int) -> str:
        try:
            make(**{name: size})
        except ValueError as error:
            return str(error)
        return ""

    assert_refused(card, f"{name}=0", lambda: make(**{name: 0}), name)
    said = {size: refusal(size) for size in range(1, SIZES)}
    possible = [size for size, text in said.items() if not text]
    for size, text in said.items():
        match = re.search(r"([\w +]+)=(\d+) exceeds .*choose from 1 to (\d+)", text)
        if match is None:
            continue
        what, value, limit = match[1], int(match[2]), int(match[3])
        extra = value - size if " + " in what else 0  # of a sum in which the size is one term
        assert value == size + extra, f"{card.name} refuses {name}={size} as {what}={value}"
        assert size + extra > limit, f"{card.name} refuses {name}={size}, and allows up to {limit}: {text}"
        assert max(possible) + extra <= limit, f"{card.name} takes {name}={max(possible)}, and names {limit}: {text}"
        shorter = "exceeds the shorter side" not in text or limit == min(SHAPE)
        assert shorter, f"{card.name} calls {limit} the shorter side of {SHAPE}: {text}"
        assert "exceeds" not in said.get(limit - extra, ""), f"{card.name} names {limit}, and refuses it: {text}"
