"""Every adapter of the catalogue, held to the public contract on every kind of layer that it is for."""

import pytest

import polyad.adapters  # noqa: F401
from polyad._card import methods
from polyad.testing import adapters

CASES = {
    f"{card.name}-{kind}-{check.__name__}": (card, kind, check)
    for card in methods("adapter")
    for kind in adapters.layers(card)
    for check in adapters.CHECKS
}


@pytest.mark.parametrize(("card", "kind", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, kind, check):
    check(card, kind)
