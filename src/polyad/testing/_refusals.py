"""Calls that a method answers with a result or refuses with a sentence, and never with a raw error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from polyad._card import Card
from polyad.testing._decomposition import assert_sentence

_Result = TypeVar("_Result")


def result_or_refusal(card: Card, what: str, call: Callable[[], _Result], naming: str = "") -> _Result | None:
    """Give the result of a call, or None where it was refused with a sentence in which ``naming`` stands.

    Any other error is a failure of the method, and names what it was given.
    """
    try:
        return call()
    except (ValueError, TypeError) as refusal:
        said: Exception = refusal
    except Exception as raw:
        raise AssertionError(f"{card.name} given {what} fails with a raw {type(raw).__name__}: {raw}") from raw
    assert_sentence(card, said)
    assert naming in str(said), f"{card.name} given {what} does not name {naming!r}: {said}"
    return None


def assert_refused(card: Card, what: str, call: Callable[[], object], naming: str = "") -> None:
    """Assert that a call is refused with a sentence in which ``naming`` stands."""
    assert result_or_refusal(card, what, call, naming) is None, f"{card.name} accepted {what}"
