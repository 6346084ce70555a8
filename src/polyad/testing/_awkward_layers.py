"""Contract checks of factorisations on what people meet by accident: dead layers, odd strides, wrong arguments."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from polyad._card import Card
from polyad.statistics import Moments
from polyad.testing._factoring import WIDE, error, factored, layer, ranks, scaled, second_moment, with_second
from polyad.testing._refusals import assert_refused, result_or_refusal


def dead(card: Card) -> None:
    """Weights of zero and of rank one, dead inputs, few rows: as good as the curve. What of singular second moments a
    method cannot use it refuses with a sentence."""
    for dtype in WIDE:
        weight, stats = layer((7, 12), dtype)
        second = second_moment(stats)
        kept = torch.ones(12, dtype=dtype)
        kept[[0, 5, 11]] = 0
        row = torch.ones(1, 12, dtype=dtype)
        cases = {
            "zero weights": (0 * weight, stats),
            "a weight of rank one": (weight[:, :1] @ row, stats),
            "dead inputs": (weight, with_second(stats, second * kept * kept[:, None])),
            "one input row": (weight, Moments(1, second=row.mT @ row, mean=row[0], peak=row[0])),
            "inputs of zero": (weight, scaled(stats, 0.0)),
        }
        for what, (given, known) in cases.items():
            limit = 64 * torch.finfo(dtype).eps * error(card, given, known)
            for rank in ranks(given):
                call = functools.partial(factored, card, given, known, rank=rank)
                found = result_or_refusal(card, what, call, "second")
                if found is None:
                    continue
                left = error(card, given - found.to_dense(), known)
                assert math.isfinite(left), f"{card.name} of {what} at rank {rank} is not finite"
                off = -math.inf if card.curve is None else left - float(card.curve(given, known)[rank])
                assert off <= limit, f"{card.name} of {what} leaves {off:.3g} above its curve"


def layout(card: Card) -> None:
    """Views with other strides and a weight that requires a gradient give what plain tensors give."""
    weight, stats = layer((7, 12))
    second = second_moment(stats)
    plain = factored(card, weight, stats).to_dense()
    views = {"transposed": weight.mT.contiguous().mT, "strided": torch.stack((weight, weight), -1)[..., 0]}
    views |= {"requires grad": weight.clone().requires_grad_(), "negative strides": weight.flip(1).flip(1)}
    strided = with_second(stats, torch.stack((second, second), -1)[..., 0])
    for name, view in views.items():
        found = factored(card, view, strided).to_dense().detach()
        off = float((found - plain).norm() / plain.norm())
        assert off < 1e-9, f"{card.name} of the same numbers ({name}) is off by {off:.3g}"


def refusals(card: Card) -> None:
    """Weights, ranks and statistics that make no sense are refused with a sentence that names them."""
    weight, stats = layer((7, 12))
    for value in (math.nan, math.inf):
        spoilt = weight.clone()
        spoilt[2, 3] = value
        assert_refused(card, f"a weight with {value}", lambda w=spoilt: factored(card, w, stats), "weight")
    weights: dict[str, Any] = {"integers": weight.long(), "complex": weight.to(torch.complex64), "a row": weight[0]}
    weights |= {"three modes": weight[None], "a list": weight.tolist(), "no rows": weight[:0]}
    for what, given in weights.items():
        assert_refused(card, f"a weight of {what}", lambda w=given: factored(card, w, stats), "weight")
    for rank in (0, -1, 8, True, 2.5, "4", None):
        assert_refused(card, f"rank={rank!r}", lambda r=rank: factored(card, weight, stats, rank=r), "rank")
    if "second" not in card.needs.get("", ()):
        return
    second = second_moment(stats).clone()
    second[0, 1] = math.nan
    wrong = {
        "no statistics": None,
        "no second moment": Moments(9),
        "NaN in the second moment": Moments(9, second=second),
    }
    wrong["a second moment of another width"] = Moments(9, second=torch.eye(7, dtype=torch.float64))
    for what, known in wrong.items():
        assert_refused(card, what, lambda s=known: factored(card, weight, s), "" if known is None else "second")
        if card.curve is not None:
            call = functools.partial(card.curve, weight, known)
            assert_refused(card, f"{what} (its curve)", call, "" if known is None else "second")
