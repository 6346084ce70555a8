"""Checks of saved adapters and copies, and of refusals that leave the model as it was."""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path

import torch

from polyad._card import Card
from polyad.testing._refusals import assert_refused
from polyad.testing.adapters._subject import model_with_adapters


def storage(card: Card, kind: str) -> None:
    """Saved, and loaded onto the same model, it gives the same to the last digit; copies do too."""
    model, adapters, x = model_with_adapters(card, kind)
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected), f"a copy of a model with {card.name} gives something else"
    with tempfile.TemporaryDirectory() as folder:
        adapters.save("a", Path(folder) / "a")
        adapters.detach("a")
        assert not torch.equal(model(x), expected), f"detaching {card.name} leaves its change"
        assert adapters.load(Path(folder) / "a") == "a"
    assert torch.equal(model(x), expected), f"{card.name} loaded on a {kind} layer gives something else"


def refusals(card: Card, kind: str) -> None:
    """NaN in what is trained is refused at merging, and two adapters cannot have one name; nothing is half done."""
    model, adapters, _ = model_with_adapters(card, kind)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    again = functools.partial(adapters.attach, "a", "*", card.function, of=("linear", "conv", "experts", "embedding"))
    assert_refused(card, "a second time under one name", again, "'a'")
    parameter = next(iter(adapters.parameters("a")))
    original = parameter.detach().clone()
    with torch.no_grad():
        parameter.view(-1)[0] = torch.nan
    assert_refused(card, "NaN to merge", adapters.merge, "NaN")
    with torch.no_grad():
        parameter.copy_(original)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"a refused merge altered {name}"
