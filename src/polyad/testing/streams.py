"""The contract of a stream: data comes once, in pieces of any size, and the answer is that to all of it.

The card's ``example`` says how it is tried. ``arguments``, a function of a generator, draws what the stream is made
with, floats in float64, and as ``rows`` the data, (n, …). ``feed`` takes in rows (``update`` by default) and ``read``
gives the answer, a tensor or several. ``off``, a function of the answer and of the arguments by name, says
how far the answer is from what the docstring promises, in units of what is allowed; ``chunks`` how far it may move,
relative to its size, with the sizes of the pieces (not at all where it is left out). ``scale`` lists arguments that
may be multiplied by any number, alone or, in a tuple, together.

>>> import polyad.algorithms
>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("incremental_mixture"))
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.testing._contract import seeded
from polyad.testing._refusals import assert_refused, result_or_refusal
from polyad.testing._saved import assert_same, read_back
from polyad.testing._standalone import (
    DTYPES,
    assert_identical,
    disturb,
    draw_arguments,
    multiply,
    off,
    refuse_numbers,
    tensors,
)


def make_stream(card: Card, arguments: Mapping[str, Any], seed: int = 0) -> Any:
    """A stream that has seen nothing, with a generator of this seed where it takes one."""
    random = {"generator": seeded(seed)} if "generator" in inspect.signature(card.function).parameters else {}
    return card.function(**{name: value for name, value in arguments.items() if name != "rows"}, **random)


def put_in(card: Card, stream: Any, rows: Tensor) -> None:
    """Let a stream take in rows."""
    card.example.get("feed", lambda stream, rows: stream.update(rows))(stream, rows)


def answer(card: Card, arguments: Mapping[str, Any], size: int | None = None, seed: int = 0) -> Any:
    """The answer to all rows, taken in by so many at once."""
    stream = make_stream(card, arguments, seed)
    for part in arguments["rows"].split(size or len(arguments["rows"])):
        put_in(card, stream, part)
    return card.example["read"](stream)


def answers(card: Card) -> None:
    """Several drawn streams are answered within what is stated, in float64 and float32."""
    for dtype in DTYPES:
        for seed in range(3):
            arguments = draw_arguments(card, seed, dtype)
            for size in (5, None):
                distance = off(card, answer(card, arguments, size, seed), arguments)
                assert distance <= 1, (
                    f"{card.name} of {dtype}, data {seed}, is {distance:.3g} times as far off as stated"
                )


def sensitive(card: Card) -> None:
    """An answer that is off by a tenth is no answer by what the example measures."""
    arguments = draw_arguments(card)
    distance = off(card, disturb(answer(card, arguments, 5)), arguments)
    assert distance > 1, f"the example of {card.name} takes an answer that is off by a tenth for the right one"


def chunks_alike(card: Card) -> None:
    """Rows one by one, by threes, by sevens and all at once give one answer."""
    arguments = draw_arguments(card)
    single, slack = tensors(answer(card, arguments, 1)), card.example.get("chunks", 1e-9)
    for size in (3, 7, None):
        for name, tensor in tensors(answer(card, arguments, size)).items():
            same = tensor.shape == single[name].shape
            apart = float((tensor - single[name]).norm() / single[name].norm()) if same else math.inf
            assert apart <= slack, f"{card.name} fed by {size or 'all rows'} differs by {apart:.2g} from row by row"


def any_scale(card: Card) -> None:
    """Data times 1e-30 and 1e30 are answered as well."""
    for names in card.example.get("scale", ()):
        for factor in (1e-30, 1e30):
            arguments = draw_arguments(card)
            for name in (names,) if isinstance(names, str) else names:
                arguments[name] = multiply(arguments[name], factor)
            distance = off(card, answer(card, arguments, 5), arguments)
            assert distance <= 1, (
                f"{card.name} with {names} times {factor:g} is {distance:.3g} times as far off as stated"
            )


def resume(card: Card) -> None:
    """Saved after any piece, read safely and put into a fresh stream, the state goes on to the same numbers."""
    arguments = draw_arguments(card)
    parts = arguments["rows"].split(max(1, len(arguments["rows"]) // 5))
    for saved in range(len(parts)):
        stream, fresh = make_stream(card, arguments), make_stream(card, arguments, seed=1)
        for part in parts[:saved]:
            put_in(card, stream, part)
        state = stream.state_dict()
        before = read_back(state)
        fresh.load_state_dict(before)
        for part in parts[saved:]:
            put_in(card, stream, part)
            put_in(card, fresh, part)
        what = f"{card.name}, saved after {saved} pieces,"
        assert_same(state, read_back(before), f"what was saved of {what} changes as the stream goes on:")
        assert_same(fresh.state_dict(), stream.state_dict(), f"{what} and gone on")
        assert_identical(card, card.example["read"](fresh), card.example["read"](stream), "read back")


def repeatable(card: Card) -> None:
    """The same rows give the same answer; they stay as they are, and what becomes of them later does not matter."""
    arguments, before = draw_arguments(card), torch.get_rng_state()
    first = answer(card, arguments, 5)
    assert_identical(card, answer(card, arguments, 5), first, "fed twice")
    assert torch.equal(torch.get_rng_state(), before), f"{card.name} draws from torch's own generator"
    assert_identical(card, arguments, draw_arguments(card), "changes what it is given and then")
    stream = make_stream(card, arguments)
    for part in arguments["rows"].split(5):
        rows = part.clone()
        put_in(card, stream, rows)
        rows.fill_(1e3)
    assert_identical(card, card.example["read"](stream), first, "keeps hold of the rows it was given and then")


def refusals(card: Card) -> None:
    """Rows that cannot be meant, and states of something else, are refused, and change nothing."""
    arguments = draw_arguments(card)
    rows, stream = arguments["rows"], make_stream(card, arguments)
    result_or_refusal(card, "no row at all", lambda: card.example["read"](stream))
    put_in(card, stream, rows[:5])
    before = stream.state_dict()
    nan = rows[5:].clone()
    nan.view(-1)[-1] = math.nan
    infinite = rows[5:].clone()
    infinite.view(-1)[0] = math.inf
    wrong = {
        "NaN in the last row": nan, "infinity in the first row": infinite, "whole numbers": rows[5:].long(),
        "rows too short": rows[5:, :-1], "rows too long": torch.cat((rows, rows[:, :1]), 1)[5:],
        "one more dimension": rows[5:].unsqueeze(0), "one dimension": rows[5], "complex numbers": rows[5:].cfloat(),
    }  # fmt: skip
    for what, bad in wrong.items():
        assert_refused(card, what, lambda bad=bad: (put_in(card, stream, bad),))
        assert_same(stream.state_dict(), before, f"{card.name}, having refused {what},")
    result_or_refusal(card, "no rows", lambda: put_in(card, stream, rows[:0]))
    assert_same(stream.state_dict(), before, f"{card.name}, given no rows,")
    for what, state in (("an empty state", {}), ("a state with one more entry", {**before, "more": 1})):
        assert_refused(card, what, lambda state=state: (stream.load_state_dict(state),), "state")
    assert_same(stream.state_dict(), before, f"{card.name}, having refused a state,")
    others = [name for name in arguments if name != "rows"]
    refuse_numbers(card, lambda arguments: answer(card, arguments, 5), names=others)


CHECKS = (answers, sensitive, chunks_alike, any_scale, resume, repeatable, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "answer", "answers", "any_scale", "chunks_alike", "make_stream", "put_in", "refusals", "repeatable",
    "resume", "sensitive",
]  # fmt: skip
