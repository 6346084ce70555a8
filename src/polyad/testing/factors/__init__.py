"""The contract of a factorisation: what every function from a layer's weight to a smaller format owes.

It is called with weight, statistics and the card's ``example``. The metric is the card's: E|D x|² for the difference
D from the weight where the card ``needs`` the second moment of the inputs x, the squared Frobenius norm of D without.
A method that minimises something else states it as the example's ``metric``: a function of the statistics that gives
the matrix M, (in, in), of tr(D M Dᵀ).

>>> from polyad._card import card
>>> metric(card("eora"))
"""

from __future__ import annotations

import functools
import itertools

import torch

from polyad._card import Card
from polyad.decompose import svd
from polyad.formats import Format, LowRank
from polyad.testing._contract import seeded
from polyad.testing._moments import permute_inputs, scale_inputs, second_moment
from polyad.testing._refusals import result_or_refusal
from polyad.testing.factors._awkward_layers import dead_layers, layout, refusals
from polyad.testing.factors._subject import HALF, SHAPES, WIDE, call_factorisation, error, layer, ranks, remainder


def result(card: Card) -> None:
    """The kind that the card names, in the weight's shape and dtype, finite; twice the same; nothing is changed.

    bfloat16 and float16 weights leave what the same weight in float32 leaves, but for the rounding of the factors.
    """
    for shape in SHAPES:
        for dtype in (*WIDE, *HALF):
            weight, stats = layer(shape, dtype)
            before, second = weight.clone(), second_moment(stats).clone()
            for rank in {1, (min(shape) + 1) // 2, min(shape)}:
                outcome, again = (call_factorisation(card, weight, stats, rank=rank) for _ in range(2))
                what = f"{card.name} of {dtype}, shape {shape}, rank {rank}"
                assert isinstance(outcome, card.makes or Format), f"{what} made {outcome!r}"
                assert (outcome.shape, outcome.dtype) == (shape, dtype), (
                    f"{what} has shape {outcome.shape}, {outcome.dtype}"
                )
                _assert_template(card, outcome, rank, what)
                assert bool(torch.isfinite(outcome.to_dense()).all()), f"{what} holds NaN or infinite numbers"
                assert torch.equal(outcome.to_dense(), again.to_dense()), f"{what} called twice gives two results"
                if dtype in HALF:
                    left, wide = (remainder(card, w, stats, rank) ** 0.5 for w in (weight, weight.float()))
                    off = left - wide
                    limit = 4 * torch.finfo(dtype).eps * error(card, weight, stats) ** 0.5
                    assert off <= limit, (
                        f"{what} leaves {off:.3g} more than float32, where rounding takes {limit:.3g}"
                    )
            assert torch.equal(weight, before), f"{card.name} changed the weight in place"
            assert torch.equal(second_moment(stats), second), f"{card.name} changed the statistics in place"


def _assert_template(card: Card, outcome: Format, rank: int, what: str) -> None:
    """The tensors have the shapes by which a budget sizes the method: its card's ``template``, or two factors."""
    if card.template is None and card.makes is not LowRank:
        return
    options = {name: value for name, value in card.example.items() if name not in ("rank", "metric")}
    stated = card.template(outcome.shape, rank, **options) if card.template else LowRank.empty(outcome.shape, rank)
    shapes, expected = ({n: tuple(t.shape) for n, t in f.tensors().items()} for f in (outcome, stated))
    assert shapes == expected, f"{what} has tensors of shapes {shapes}, and its card says {expected}"


def error_curve(card: Card) -> None:
    """In the card's metric, every rank leaves what the card's ``curve`` says, none more than one below it."""
    for shape in SHAPES:
        for dtype in WIDE:
            weight, stats = layer(shape, dtype)
            whole = error(card, weight, stats)
            slack = 64 * torch.finfo(dtype).eps * whole
            errors = [whole, *(remainder(card, weight, stats, rank) for rank in ranks(weight))]
            what = f"{card.name} of {dtype}, shape {shape}"
            for rank, (more, less) in enumerate(itertools.pairwise(errors), 1):
                assert less <= more + slack, f"{what} leaves {less:.6g} at rank {rank}, {more:.6g} at one less"
            assert errors[-1] <= slack, f"{what} at its full rank leaves {errors[-1]:.3g} of {whole:.3g}"
            if card.curve is None:
                continue
            curve = card.curve(weight, stats)
            assert len(curve) >= len(errors), (
                f"the curve of {what} has {len(curve)} entries, not {len(errors)} or more"
            )
            for rank, measured in enumerate(errors):
                stated = float(curve[rank])
                assert abs(measured - stated) <= slack, (
                    f"{what} leaves {measured:.6g} at rank {rank}, not {stated:.6g}"
                )


def half_precision(card: Card) -> None:
    """The curve of a bfloat16 or float16 weight is that of the same numbers in float32."""
    if card.curve is None:
        return
    for dtype in HALF:
        weight, stats = layer(dtype=dtype)
        plain = card.curve(weight.float(), stats).double()
        curve = result_or_refusal(card, f"a weight of {dtype}", functools.partial(card.curve, weight, stats))
        assert curve is not None, f"the curve of {card.name} refuses a weight of {dtype}"
        off = float((curve - plain).abs().max() / plain[0])
        assert off <= 1e-5, f"the curve of {card.name} in {dtype} is off by {off:.3g}"


def metric(card: Card) -> None:
    """A method that needs statistics beats the plain SVD in its metric; one that needs none does not read them.

    By a tenth in that of the second moment, whose directions differ a hundredfold in size; by more than rounding in a
    metric that the example states.
    """
    share = 0.999 if "metric" in card.example else 0.9
    weight, stats = layer((12, 10))
    other = layer((12, 10), seed=1)[1]
    for rank in (1, 3, 5):
        outcome = remainder(card, weight, stats, rank)
        plain = error(card, weight - svd(weight, rank).to_dense(), stats)
        if card.needs.get("", ()):
            assert outcome < share * plain, (
                f"{card.name} at rank {rank} leaves {outcome:.4g}, a plain SVD {plain:.4g}"
            )
            continue
        first = call_factorisation(card, weight, stats, rank=rank).to_dense()
        for statistics in (other, None):
            same = torch.equal(first, call_factorisation(card, weight, statistics, rank=rank).to_dense())
            assert same, f"{card.name} reads statistics that its card does not need"


def permutation(card: Card) -> None:
    """Permuting the weight's outputs, and its inputs with their statistics, permutes the result."""
    for shape in ((7, 12), (12, 7)):
        weight, stats = layer(shape)
        rows, columns = (torch.randperm(n, generator=seeded(2)) for n in shape)
        for rank in (1, 3, min(shape)):
            plain = call_factorisation(card, weight, stats, rank=rank).to_dense()
            inputs = permute_inputs(stats, columns)
            outcome = call_factorisation(card, weight[rows][:, columns], inputs, rank=rank).to_dense()
            off = float((outcome - plain[rows][:, columns]).norm() / plain.norm())
            assert off < 1e-6, f"{card.name} of a permuted weight is off by {off:.3g} from the permuted result"


def scale(card: Card) -> None:
    """Weights of 1e-30 to 1e30 and inputs of 1e-12 to 1e12 give the same result times the weights' scale."""
    for dtype in WIDE:
        weight, stats = layer((12, 10), dtype)
        plain = call_factorisation(card, weight, stats, rank=4).to_dense().double()
        curve = None if card.curve is None else card.curve(weight, stats)[4]
        for weights, inputs in ((1e-30, 1.0), (1e-12, 1e12), (1e12, 1e-12), (1e30, 1.0), (1.0, 1e12), (1.0, 1e-12)):
            larger = scale_inputs(stats, inputs)
            outcome = call_factorisation(card, weight * weights, larger, rank=4).to_dense().double() / weights
            off = float((outcome - plain).norm() / plain.norm())
            what = f"{card.name} of {dtype} at weights times {weights}, inputs times {inputs}"
            assert off < 2e3 * torch.finfo(dtype).eps, f"{what} is off by {off:.3g}"
            if curve is not None and card.curve is not None:
                power = error(card, weight * weights, larger) / error(card, weight, stats)
                off = float(card.curve(weight * weights, larger)[4]) / power / float(curve) - 1
                assert abs(off) < 1e-3, f"the curve of {what} is off by {off:.3g}"
    for dtype in HALF:
        weight, stats = layer((12, 10), dtype)
        for inputs in (1e-6, 1e6):
            outcome = call_factorisation(card, weight, scale_inputs(stats, inputs), rank=10).to_dense()
            off = float((outcome - weight).float().norm() / weight.float().norm())
            assert off < 0.2, f"{card.name} of {dtype} at its full rank and inputs times {inputs} is off by {off:.3g}"


CHECKS = (result, error_curve, half_precision, metric, permutation, scale, dead_layers, layout, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "SHAPES", "call_factorisation", "dead_layers", "error", "error_curve", "half_precision", "layer",
    "layout", "metric", "permutation", "refusals", "result", "scale",
]  # fmt: skip
