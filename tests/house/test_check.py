"""Checks of arguments: what they let pass, and the sentences that they say."""

import math

import pytest

from polyad import _check


def test_numbers_from_the_least_on_come_back_as_they_are():
    assert _check.at_least("group", 1, 1) == 1
    assert _check.at_least("noise", 0.0, 0) == 0.0


@pytest.mark.parametrize("value", [0, -3, 0.999, math.nan])
def test_numbers_below_the_least_are_refused_by_name(value):
    with pytest.raises(ValueError, match=f"^group={value} must be at least 1$"):
        _check.at_least("group", value, 1)


def test_words_are_refused_as_of_the_wrong_type():
    with pytest.raises(TypeError, match="group='8' is no number; it must be at least 1"):
        _check.at_least("group", "8", 1)
