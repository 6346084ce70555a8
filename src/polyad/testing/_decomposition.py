"""Parts of the contract of decompositions: the tensor, the result, its error, the words of a refusal."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.formats import Format
from polyad.testing._contract import seeded_generator

SLACK = 1e-3
"""How much a relative error may move when x is scaled or permuted, which changes roundings and nothing else."""


def draw_tensor(card: Card, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """The tensor on which a decomposition is tried."""
    asked = card.example.get("x", (6, 5, 4))
    if callable(asked):
        x = asked(seeded_generator(seed))
        assert isinstance(x, Tensor), f"the example of {card.name} draws {type(x).__name__}, not a tensor"
        return x.to(dtype)
    return torch.randn(asked, generator=seeded_generator(seed), dtype=torch.float64).to(dtype)


def call_decomposition(card: Card, x: Tensor, **changes: Any) -> Format:
    """The decomposition of x with the example's arguments."""
    arguments = {name: value for name, value in card.example.items() if name != "x"} | changes
    return card.function(x, **{name: value for name, value in arguments.items() if value is not None})


def error(format: Format, x: Tensor) -> float:
    """The relative Frobenius error, in float64."""
    double = torch.complex128 if x.dtype.is_complex else torch.float64
    exact = dense(x).to(double)
    top = exact.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    return float(((dense(format).to(double) - exact) / top).norm() / (exact / top).norm())


def dense(x: Tensor | Format) -> Tensor:
    """The numbers of a format or of a sparse tensor; a dense one as it is."""
    return x.to_dense() if isinstance(x, Format) or x.is_sparse else x


def assert_sentence(card: Card, refused: Exception) -> None:
    """Assert that a refusal is a sentence of the method, and not the message of a library below it."""
    said = str(refused)
    assert len(said.split()) >= 4, f"{card.name} refuses with {said!r}, which is no sentence"
    assert not re.search(r"linalg[._]\w+:|LAPACK|must match|broadcast", said), (
        f"{card.name} passes on a raw error: {said}"
    )


def is_refused(card: Card, x: Tensor) -> bool:
    """True where x is refused, with a sentence."""
    try:
        call_decomposition(card, x)
    except ValueError as refused:
        assert_sentence(card, refused)
        return True
    return False
