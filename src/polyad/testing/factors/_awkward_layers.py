"""Contract checks of factorisations on what people meet by accident: dead layers, odd strides, wrong arguments."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from polyad._card import Card
from polyad.statistics import Moments
from polyad.testing._moments import replace_second, scale_inputs, second_moment
from polyad.testing._refusals import assert_refused, result_or_refusal
from polyad.testing.factors._subject import WIDE, call_factorisation, error, layer, ranks


def dead_layers(card: Card) -> None:
    """Weights of zero and of rank one, dead inputs and few rows leave what the curve says.

    Singular second moments that a method cannot use may be refused with a sentence that names them.
    """
    for dtype in WIDE:
        weight, stats = layer((7, 12), dtype)
        second = second_moment(stats)
        alive = torch.ones(12, dtype=dtype)
        alive[[0, 5, 11]] = 0
        row = torch.ones(1, 12, dtype=dtype)
        cases = {
            "zero weights": (0 * weight, stats),
            "a weight of rank one": (weight[:, :1] @ row, stats),
            "dead inputs": (weight, replace_second(stats, second * alive * alive[:, None])),
            "one input row": (weight, Moments(1, second=row.mT @ row, mean=row[0], peak=row[0])),
            "inputs of zero": (weight, scale_inputs(stats, 0.0)),
        }
        for what, (matrix, statistics) in cases.items():
            limit = 64 * torch.finfo(dtype).eps * error(card, matrix, statistics)
            for rank in ranks(matrix):
                call = functools.partial(call_factorisation, card, matrix, statistics, rank=rank)
                outcome = result_or_refusal(card, what, call, "second")
                if outcome is None:
                    continue
                left = error(card, matrix - outcome.to_dense(), statistics)
                assert math.isfinite(left), f"{card.name} of {what} at rank {rank} is not finite"
                off = -math.inf if card.curve is None else left - float(card.curve(matrix, statistics)[rank])
                assert off <= limit, f"{card.name} of {what} leaves {off:.3g} above its curve"


def layout(card: Card) -> None:
    """Views with other strides and a weight that requires a gradient give what plain tensors give."""
    weight, stats = layer((7, 12))
    second = second_moment(stats)
    plain = call_factorisation(card, weight, stats).to_dense()
    views = {"transposed": weight.mT.contiguous().mT, "strided": torch.stack((weight, weight), -1)[..., 0]}
    views |= {"requires grad": weight.clone().requires_grad_()}
    strided = replace_second(stats, torch.stack((second, second), -1)[..., 0])
    for name, view in views.items():
        outcome = call_factorisation(card, view, strided).to_dense().detach()
        off = float((outcome - plain).norm() / plain.norm())
        assert off < 1e-9, f"{card.name} of the same numbers ({name}) is off by {off:.3g}"


def refusals(card: Card) -> None:
    """Weights, ranks and statistics that make no sense are refused with a sentence that names them."""
    weight, stats = layer((7, 12))
    for value in (math.nan, math.inf):
        spoilt = weight.clone()
        spoilt[2, 3] = value
        assert_refused(card, f"a weight with {value}", lambda w=spoilt: call_factorisation(card, w, stats), "weight")
    weights: dict[str, Any] = {"integers": weight.long(), "complex": weight.to(torch.complex64), "a row": weight[0]}
    weights |= {"three modes": weight[None], "a list": weight.tolist(), "no rows": weight[:0]}
    for what, matrix in weights.items():
        assert_refused(card, f"a weight of {what}", lambda w=matrix: call_factorisation(card, w, stats), "weight")
    for rank in (0, -1, 8, True, 2.5, "4", None):
        assert_refused(card, f"rank={rank!r}", lambda r=rank: call_factorisation(card, weight, stats, rank=r), "rank")
    if "second" not in card.needs.get("", ()):
        return
    second = second_moment(stats).clone()
    second[0, 1] = math.nan
    wrong = {"no statistics": None, "no second moment": Moments(9)}
    wrong["NaN in the second moment"] = Moments(9, second=second)
    wrong["a second moment of another width"] = Moments(9, second=torch.eye(7, dtype=torch.float64))
    for what, statistics in wrong.items():
        name = "" if statistics is None else "second"
        assert_refused(card, what, functools.partial(call_factorisation, card, weight, statistics), name)
        if card.curve is not None:
            assert_refused(card, f"{what} (its curve)", functools.partial(card.curve, weight, statistics), name)
