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
from polyad.testing._contract import seeded_generator
from polyad.testing._decomposition import SLACK, assert_sentence, call_decomposition, dense, draw_tensor, error


def masks(card: Card) -> None:
    """Entries under a mask are not read, NaN included; all others must be finite; it must be bools in x's shape."""
    if "mask" not in inspect.signature(card.function).parameters:
        return
    for dtype in (torch.float64, torch.float32):
        x = draw_tensor(card, dtype).abs()
        visible = torch.rand(x.shape, generator=seeded_generator(1)) < 0.8
        hidden = [
            dense(call_decomposition(card, x.where(visible, other), mask=visible))
            for other in (math.nan, math.inf, 0.0)
        ]
        assert bool(torch.isfinite(hidden[0]).all()), f"{card.name} lets NaN under the mask through"
        assert all(torch.equal(hidden[0], one) for one in hidden), f"{card.name} reads what the mask hides"
        whole = error(call_decomposition(card, x, mask=torch.ones_like(visible)), x)
        plain = error(call_decomposition(card, x), x)
        assert whole <= plain + 10 * SLACK, (
            f"{card.name} leaves {whole:.4g} under a mask that hides nothing, not {plain:.4g}"
        )
        no_row = visible.clone()
        no_row[..., 0] = False
        assert bool(torch.isfinite(dense(call_decomposition(card, x.where(no_row, math.nan), mask=no_row))).all())
    x = draw_tensor(card)
    visible = torch.rand(x.shape, generator=seeded_generator(1)) < 0.8
    for damaged in (x.where(~visible, math.nan), x.where(~visible, math.inf)):
        _assert_refused(card, "NaN outside the mask", damaged, mask=visible)
    _assert_refused(card, "a mask of floats", x, mask=visible.double())
    _assert_refused(card, "a mask of another shape", x, mask=visible[..., :-1])
    _result_or_sentence(
        card, "a mask that hides everything", torch.full_like(x, math.nan), mask=torch.zeros_like(visible)
    )


def beyond(card: Card) -> None:
    """Ranks beyond what x has, of none and of less: a result or a sentence; tolerances that are none: a sentence."""
    x = draw_tensor(card)
    asked = card.example.get("rank")
    if asked is not None:
        for wrong in (10**6, max(x.shape) + 1, 0, -1):
            rank = tuple([wrong for _ in asked]) if isinstance(asked, tuple) else wrong
            check = _result_or_sentence if wrong > 0 else _assert_refused
            check(card, f"rank={rank}", x, rank=rank)
        _result_or_sentence(card, "seventeen ranks", x, rank=(1,) * 17)
    if "tol" in inspect.signature(card.function).parameters and asked is not None:
        for wrong in (-0.1, 1.0, math.nan, math.inf):
            _assert_refused(card, f"tol={wrong}", x, rank=None, tol=wrong)
        _assert_refused(card, "neither rank nor tol", x, rank=None, tol=None)


def short(card: Card) -> None:
    """Modes of length one, deficient tensors and too few dimensions: a result no worse than zero, or a sentence."""
    x = draw_tensor(card)
    if x.is_sparse:
        return
    for tensor in _short(x):
        for asked in ({}, {"rank": _ones(card.example.get("rank"))} if "rank" in card.example else {}):
            outcome = _result_or_sentence(card, f"shape {tuple(tensor.shape)}", tensor, **asked)
            if outcome is not None and bool(tensor.any()):
                off = error(outcome, tensor)
                assert off <= 1 + SLACK, f"{card.name} of shape {tuple(tensor.shape)} is off by {off:.3g}"
    for tensor in (torch.ones((), dtype=x.dtype), torch.ones(3, dtype=x.dtype)):
        _result_or_sentence(card, f"shape {tuple(tensor.shape)}", tensor)
    for mode in range(x.ndim):
        _assert_refused(card, f"an empty mode {mode}", x.narrow(mode, 0, 0))
    _assert_refused(card, "a list of numbers", [[1.0, 2.0], [3.0, 4.0]])


def batches(card: Card) -> None:
    """A batch leaves the errors of its members, be they zero or of any scale; a NaN in one member is refused."""
    if "batch" not in inspect.signature(card.function).parameters:
        return
    x = draw_tensor(card)
    members = (x, 1e-30 * x, torch.zeros_like(x), 1e30 * x, torch.ones_like(x))
    results = dense(call_decomposition(card, torch.stack(members), batch=1))
    for one, member in zip(results, members, strict=True):
        alone = call_decomposition(card, member)
        if not bool(member.any()):
            assert not bool(one.any()), f"{card.name} of zeros in a batch is not zero"
            continue
        size = member.abs().max()
        off = float((one / size - member / size).norm() / (member / size).norm())
        assert off <= error(alone, member) + 10 * SLACK, (
            f"{card.name} leaves {off:.4g} in a batch, alone {error(alone, member):.4g}"
        )
    spoilt = torch.stack((x, x))
    spoilt.view(2, -1)[1, 0] = math.nan
    _assert_refused(card, "NaN in one member of a batch", spoilt, batch=1)
    for wrong in (-1, 7):
        _assert_refused(card, f"batch={wrong}", x, batch=wrong)


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


def _result_or_sentence(card: Card, what: str, x: Any, **arguments: Any) -> Format | None:
    """A finite result of x's shape, or a sentence; None where it was refused."""
    try:
        outcome = call_decomposition(card, x, **arguments)
    except (ValueError, TypeError) as refused:
        assert_sentence(card, refused)
        return None
    assert outcome.shape == tuple(x.shape), f"{card.name} given {what} has shape {outcome.shape}"
    assert bool(torch.isfinite(dense(outcome)).all()), f"{card.name} given {what} holds NaN or infinite numbers"
    return outcome


def _assert_refused(card: Card, what: str, x: Any, **arguments: Any) -> None:
    assert _result_or_sentence(card, what, x, **arguments) is None, f"{card.name} accepted {what}"
