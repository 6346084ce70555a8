"""Contract checks on input that people meet by accident: missing entries, ranks beyond the modes, short modes, …

Whatever is given, a decomposition answers with finite numbers of the right shape or refuses with a sentence.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.formats import Format
from polyad.testing._contract import seeded
from polyad.testing._decomposition import SLACK, assert_sentence, dense, drawn, error, made


def missing(card: Card) -> None:
    """What a mask hides is not read, NaN included; what it shows must be finite; it must be bools in x's shape."""
    if "mask" not in inspect.signature(card.function).parameters:
        return
    for dtype in (torch.float64, torch.float32):
        x = drawn(card, dtype).abs()
        seen = torch.rand(x.shape, generator=seeded(1)) < 0.8
        hidden = [dense(made(card, x.where(seen, other), mask=seen)) for other in (math.nan, math.inf, 0.0)]
        assert bool(torch.isfinite(hidden[0]).all()), f"{card.name} lets NaN under the mask through"
        assert all(torch.equal(hidden[0], one) for one in hidden), f"{card.name} reads what the mask hides"
        whole = error(made(card, x, mask=torch.ones_like(seen)), x)
        plain = error(made(card, x), x)
        assert whole <= plain + 10 * SLACK, (
            f"{card.name} leaves {whole:.4g} under a mask that hides nothing, not {plain:.4g}"
        )
        no_row = seen.clone()
        no_row[..., 0] = False
        assert bool(torch.isfinite(dense(made(card, x.where(no_row, math.nan), mask=no_row))).all())
    x = drawn(card)
    seen = torch.rand(x.shape, generator=seeded(1)) < 0.8
    for given in (x.where(~seen, math.nan), x.where(~seen, math.inf)):
        _refused(card, "NaN outside the mask", given, mask=seen)
    _refused(card, "a mask of floats", x, mask=seen.double())
    _refused(card, "a mask of another shape", x, mask=seen[..., :-1])
    _allowed(card, "a mask that hides everything", torch.full_like(x, math.nan), mask=torch.zeros_like(seen))


def beyond(card: Card) -> None:
    """Ranks beyond what x has, of none and of less: a result or a sentence; tolerances that are none: a sentence."""
    x = drawn(card)
    asked = card.example.get("rank")
    if asked is not None:
        for wrong in (10**6, max(x.shape) + 1, 0, -1):
            rank = tuple([wrong for _ in asked]) if isinstance(asked, tuple) else wrong
            check = _allowed if wrong > 0 else _refused
            check(card, f"rank={rank}", x, rank=rank)
        _allowed(card, "seventeen ranks", x, rank=(1,) * 17)
    if "tol" in inspect.signature(card.function).parameters and asked is not None:
        for wrong in (-0.1, 1.0, math.nan, math.inf):
            _refused(card, f"tol={wrong}", x, rank=None, tol=wrong)
        _refused(card, "neither rank nor tol", x, rank=None, tol=None)


def short(card: Card) -> None:
    """Modes of length one, deficient tensors and too few dimensions: a result no worse than zero, or a sentence."""
    x = drawn(card)
    if x.is_sparse:
        return
    for given in _short(x):
        for asked in ({}, {"rank": _ones(card.example.get("rank"))} if "rank" in card.example else {}):
            found = _allowed(card, f"shape {tuple(given.shape)}", given, **asked)
            if found is not None and bool(given.any()):
                off = error(found, given)
                assert off <= 1 + SLACK, f"{card.name} of shape {tuple(given.shape)} is off by {off:.3g}"
    for given in (torch.ones((), dtype=x.dtype), torch.ones(3, dtype=x.dtype)):
        _allowed(card, f"shape {tuple(given.shape)}", given)
    for mode in range(x.ndim):
        _refused(card, f"an empty mode {mode}", x.narrow(mode, 0, 0))
    _refused(card, "a list of numbers", [[1.0, 2.0], [3.0, 4.0]])


def batched(card: Card) -> None:
    """A batch leaves the errors of its members, be they zero or of any scale; a NaN in one member is refused."""
    if "batch" not in inspect.signature(card.function).parameters:
        return
    x = drawn(card)
    members = (x, 1e-30 * x, torch.zeros_like(x), 1e30 * x, torch.ones_like(x))
    found = dense(made(card, torch.stack(members), batch=1))
    for one, given in zip(found, members, strict=True):
        alone = made(card, given)
        if not bool(given.any()):
            assert not bool(one.any()), f"{card.name} of zeros in a batch is not zero"
            continue
        size = given.abs().max()
        off = float((one / size - given / size).norm() / (given / size).norm())
        assert off <= error(alone, given) + 10 * SLACK, (
            f"{card.name} leaves {off:.4g} in a batch, alone {error(alone, given):.4g}"
        )
    spoilt = torch.stack((x, x))
    spoilt.view(2, -1)[1, 0] = math.nan
    _refused(card, "NaN in one member of a batch", spoilt, batch=1)
    for wrong in (-1, 7):
        _refused(card, f"batch={wrong}", x, batch=wrong)


def _short(x: Tensor) -> list[Tensor]:
    """Slices and products of x: modes of length one, in every place and in all, and a tensor of rank one."""
    single = [x.narrow(mode, 0, 1) for mode in range(x.ndim)]
    rows = [
        x.flatten()[: x.shape[mode]].view([-1 if m == mode else 1 for m in range(x.ndim)]) for mode in range(x.ndim)
    ]
    outer = rows[0]
    for row in rows[1:]:
        outer = outer * row
    return [*single, *rows, x.flatten()[:1].view([1] * x.ndim), outer]


def _ones(rank: Any) -> Any:
    return tuple([1 for _ in rank]) if isinstance(rank, tuple) else 1


def _allowed(card: Card, what: str, x: Any, **given: Any) -> Format | None:
    """A finite result of x's shape, or a sentence; None where it was refused."""
    try:
        found = made(card, x, **given)
    except (ValueError, TypeError) as refused:
        assert_sentence(card, refused)
        return None
    assert found.shape == tuple(x.shape), f"{card.name} given {what} has shape {found.shape}"
    assert bool(torch.isfinite(dense(found)).all()), f"{card.name} given {what} holds NaN or infinite numbers"
    return found


def _refused(card: Card, what: str, x: Any, **given: Any) -> None:
    assert _allowed(card, what, x, **given) is None, f"{card.name} accepted {what}"
