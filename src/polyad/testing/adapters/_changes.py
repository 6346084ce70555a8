"""Checks of the change that an adapter makes: at its start, merged, together with others, for each row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.testing.adapters._subject import LAYERS, assert_near, model_with_adapters


def start(card: Card, kind: str) -> None:
    """The model gives what it gave before, where the method starts at the base; the base keeps names and numbers."""
    model, adapters, x = model_with_adapters(card, kind, moved=False)
    output = model(x)
    assert any(p.requires_grad for p in adapters.parameters("a")), f"{card.name} trains nothing"
    adapters.activate([])
    expected = model(x)
    if card.example.get("identity", True):
        off = float((output - expected).detach().abs().max() / expected.detach().abs().max())
        assert off < 1e-5, f"{card.name} changes a {kind} layer by {off:.2g} before any step"
    plain, _ = LAYERS[kind]()
    missing = plain.state_dict().keys() - model.state_dict().keys()
    assert not missing, f"the base's {sorted(missing)} are no longer in the state dict"


def merge(card: Card, kind: str) -> None:
    """Merged weights give what the forward pass gives, with gradients and without; unmerging restores every bit."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model, adapters, x = model_with_adapters(card, kind, dtype=dtype)
        before = {name: t.clone() for name, t in model.state_dict().items()}
        adapters.activate({"a": 0.5})
        half = model(x)
        adapters.activate("a")
        expected = model(x)
        assert half.dtype == expected.dtype, f"{card.name} by a weight turns a {kind} layer into {half.dtype}"
        with torch.no_grad():
            assert_near(model(x), expected, dtype, f"{card.name} without gradients on a {kind} layer")
        adapters.merge()
        output = model(x)
        assert expected.dtype == output.dtype, f"{card.name} turns a {kind} layer of {dtype} into {expected.dtype}"
        assert_near(output, expected, dtype, f"{card.name} merged into a {kind} layer")
        adapters.unmerge()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), f"unmerging {card.name} alters {name} in {dtype}"
        assert torch.equal(model(x), expected), f"{card.name} gives something else after unmerging"


def sums(card: Card, kind: str) -> None:
    """Two active adapters change every layer by the sum of their changes, in any order, each by its weight."""
    model, adapters, _ = model_with_adapters(card, kind, names=("a", "b"), dtype=torch.float64)
    changes: dict[str, dict[str, Tensor]] = {}
    before = {name: t.clone() for name, t in model.state_dict().items() if ".adapters" not in name}
    asks: dict[str, Any] = {"a": "a", "b": "b", "both": ["b", "a"], "weighted": {"a": 0.5, "b": -2.0}}
    for name, ask in asks.items():
        adapters.activate(ask)
        adapters.merge()
        changes[name] = {key: model.state_dict()[key] - t for key, t in before.items()}
        adapters.unmerge()
    for key in before:
        a, b = changes["a"][key], changes["b"][key]
        assert_near(changes["both"][key], a + b, torch.float64, f"two {card.name} on {key}")
        assert_near(changes["weighted"][key], 0.5 * a - 2 * b, torch.float64, f"weighted {card.name} on {key}")


def several(card: Card, kind: str) -> None:
    """The forward pass of two weighted adapters is that of their merged weights."""
    model, adapters, x = model_with_adapters(card, kind, names=("a", "b"), dtype=torch.float64)
    for ask in (["a", "b"], {"b": 0.5, "a": 2.0}):
        adapters.activate(ask)
        expected = model(x)
        adapters.merge()
        assert_near(model(x), expected, torch.float64, f"two {card.name} on a {kind} layer")
        adapters.unmerge()


def rows(card: Card, kind: str) -> None:
    """Each row of a batch may have its own adapter."""
    if kind == "experts":
        return
    model, adapters, x = model_with_adapters(card, kind, names=("a", "b"), dtype=torch.float64)
    choice: list[str | None] = [("a", None, "b")[i % 3] for i in range(len(x))]
    with adapters.routed(choice):
        output = model(x)
    for name in {*choice}:
        adapters.activate([] if name is None else [name])
        index = [i for i, chosen in enumerate(choice) if chosen == name]
        assert_near(output[index], model(x)[index], torch.float64, f"rows of {card.name} {name} on a {kind} layer")
