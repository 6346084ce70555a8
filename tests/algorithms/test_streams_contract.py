"""Streams of the catalogue, held to the public contract; wrong ones of our own, each caught by its check."""

import pytest
import torch

from polyad._card import Card, Paper, methods
from polyad.algorithms import KroneckerProjection, Stream, StreamingEigenvector
from polyad.testing import streams

CASES = {f"{card.name}-{check.__name__}": (card, check) for card in methods("stream") for check in streams.CHECKS}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


class Mean(Stream):
    """The mean of all rows."""

    def __init__(self, width):
        self.total, self.count = torch.zeros(width, dtype=torch.float64), 0

    def refuse(self, rows):
        if not rows.is_floating_point():
            raise TypeError(f"rows are of {rows.dtype}; give floating-point numbers")
        if rows.ndim != 2 or rows.shape[1] != len(self.total) or not bool(torch.isfinite(rows).all()):
            raise ValueError(f"rows of shape {tuple(rows.shape)} do not fit, or hold NaN or infinite numbers")

    def update(self, rows):
        self.refuse(rows)
        for row in rows:
            self.total = self.total + row
            self.count += 1

    def answer(self):
        if not self.count:
            raise ValueError("no row has been seen yet; call update first")
        return self.total / self.count


def stream(function=Mean, off=None, **given):
    example = {
        "arguments": lambda g: {"width": 3, "rows": 1 + torch.randn(30, 3, generator=g, dtype=torch.float64)},
        "read": lambda stream: stream.answer(),
        "off": off or (lambda mean, rows, width: float((mean / rows.double().mean(0) - 1).abs().max()) / 1e-6),
        "scale": ("rows",),
    }
    return Card("toy", "stream", function, None, (Paper("Nobody", 2000, "Nothing", "arXiv:0"),), {**example, **given})


def test_a_good_stream_passes():
    for check in streams.CHECKS:
        check(stream())


class Late(Mean):
    """Leaves the first row out."""

    def update(self, rows):
        super().update(rows if self.count else torch.cat((0 * rows[:1], rows[1:])))


class Pieces(Mean):
    """The mean of the means of pieces."""

    def update(self, rows):
        self.refuse(rows)
        if len(rows):
            self.total, self.count = self.total + rows.mean(0), self.count + 1


class Clipped(Mean):
    def update(self, rows):
        super().update(rows.clamp(max=1e20))


class Elsewhere(Mean):
    """Keeps its count in a list, which is not saved."""

    def __init__(self, width):
        super().__init__(width)
        self.counts = []

    def update(self, rows):
        self.refuse(rows)
        for row in rows:
            self.counts.append(1)
            self.total = self.total + row

    def answer(self):
        if not self.counts:
            raise ValueError("no row has been seen yet; call update first")
        return self.total / len(self.counts)


class Same(Mean):
    """Hands out its own tensors as the saved state, and goes on in them."""

    def update(self, rows):
        self.refuse(rows)
        for row in rows:
            self.total.add_(row)
            self.count += 1

    def state_dict(self):
        return dict(vars(self))


class Noisy(Mean):
    def update(self, rows):
        super().update(rows * (1 + 1e-12 * torch.rand((), dtype=torch.float64)))


class Holding(Mean):
    """Keeps the rows themselves and adds them up when asked."""

    def __init__(self, width):
        super().__init__(width)
        self.rows = torch.zeros(0, width, dtype=torch.float64)
        self.last = self.rows

    def update(self, rows):
        self.refuse(rows)
        self.rows, self.last = torch.cat((self.rows, self.last)), rows

    def answer(self):
        rows = torch.cat((self.rows, self.last))
        if not len(rows):
            raise ValueError("no row has been seen yet; call update first")
        return rows.mean(0)


class Half(Mean):
    """Takes in the rows before the one that it refuses."""

    def update(self, rows):
        for i in range(len(rows)):
            super().update(rows[i : i + 1])


class Blind(Mean):
    def update(self, rows):
        super().update(rows.nan_to_num())


class Wide(Mean):
    """Takes any state for its own."""

    def load_state_dict(self, state):
        vars(self).update(state)


STREAMS = [
    ("answers", stream(Late), "times as far off"),
    ("sensitive", stream(off=lambda *_, **given: 0.0), "off by a tenth"),
    ("chunks_alike", stream(Pieces), "from row by row"), ("any_scale", stream(Clipped), r"times 1e\+30"),
    ("resume", stream(Elsewhere), "two different numbers"),
    ("resume", stream(Same), "changes as the stream goes on"),
    ("repeatable", stream(Noisy), "fed twice"), ("repeatable", stream(Holding), "keeps hold of the rows"),
    ("refusals", stream(Half), "having refused NaN in the last row"), ("refusals", stream(Blind), "accepted NaN"),
    ("refusals", stream(Wide), "accepted an empty state"),
]  # fmt: skip


@pytest.mark.parametrize(("prop", "card", "said"), STREAMS)
def test_each_check_catches_a_stream_that_breaks_it(prop, card, said):
    with pytest.raises(AssertionError, match=said):
        getattr(streams, prop)(card)


def test_every_check_has_a_wrong_stream():
    assert {prop for prop, *_ in STREAMS} == {check.__name__ for check in streams.CHECKS}


def test_a_state_of_another_make_is_refused_in_words():
    one, other = StreamingEigenvector(4), KroneckerProjection(torch.eye(4), torch.eye(2))
    with pytest.raises(ValueError, match=r"state is not of a KroneckerProjection: _a, _count, _inverse"):
        other.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match=r"state has the float 1.0 at _seen where .* has the int 0; make it"):
        one.load_state_dict({**one.state_dict(), "_seen": 1.0})
    with pytest.raises(ValueError, match=r"a tensor of 1 dimensions and torch.float32 at heavy where"):
        one.load_state_dict({**one.state_dict(), "heavy": torch.zeros(3)})
