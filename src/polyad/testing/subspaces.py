"""The contract of a subspace: what every choice of coordinates for gradients owes the rules that work in them.

A subspace is made with its card's ``example``. In it ``follows`` is the number of refreshes with one gradient of low
rank after which nothing of it is lost (left out where the subspace does not look at gradients), and
``orthonormal=False`` says that matrices come back from their coordinates in the mean over seeds, and no more.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.optim import Subspace
from polyad.testing._contract import normal, seeded_generator
from polyad.testing._saved import assert_same, read_back

SHAPES = ((8, 20), (8, 8), (5, 6))
SEEDS = 400
"""Draws over which a subspace that is not orthonormal is averaged."""


def make_subspace(card: Card, seed: int = 0) -> Subspace:
    """A subspace with its example's arguments, and with a generator of this seed where it takes one."""
    arguments = {name: value for name, value in card.example.items() if name not in ("follows", "orthonormal")}
    if "generator" in inspect.signature(card.function).parameters:
        arguments["generator"] = seeded_generator(seed)
    return card.function(**arguments)


def maps(card: Card) -> None:
    """Down gives ``rank`` rows, is linear, and has up as its transpose, in float32, float64 and bfloat16."""
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            subspace, g, h = make_subspace(card), normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=2)
            basis = subspace.refresh(g)
            low = subspace.down(g, basis)
            assert low.shape == (subspace.rank, shape[1]), f"{card.name} takes {shape} down to {tuple(low.shape)}"
            y = normal(*low.shape, dtype=dtype, seed=3)
            high = subspace.up(y, basis)
            assert high.shape == shape, f"{card.name} takes coordinates of {shape} up to {tuple(high.shape)}"
            mixed = subspace.down(2 * g - h, basis)
            _near(mixed, 2 * low - subspace.down(h, basis), dtype, f"{card.name}: down is not linear")
            one, other = (low.double() * y.double()).sum(), (g.double() * high.double()).sum()
            slack = 30 * torch.finfo(dtype).eps * float(g.double().norm() * y.double().norm())
            assert abs(float(one - other)) < slack, f"{card.name}: up is not the transpose of down"


def inverse(card: Card) -> None:
    """Coordinates come back from their matrix; without an orthonormal basis, matrices do in the mean over seeds."""
    for shape in SHAPES:
        subspace, g = make_subspace(card), normal(*shape, dtype=torch.float64)
        basis = subspace.refresh(g)
        y = subspace.down(g, basis)
        if card.example.get("orthonormal", True):
            off, limit = (subspace.down(subspace.up(y, basis), basis) - y).norm() / y.norm(), 1e-5
        else:
            total = torch.zeros_like(g)
            for one in (make_subspace(card, seed) for seed in range(SEEDS)):
                basis = one.refresh(g)
                total += one.up(one.down(g, basis), basis)
            off, limit = (total / SEEDS - g).norm() / g.norm(), 3 * (shape[0] / subspace.rank / SEEDS) ** 0.5
        assert float(off) < limit, f"{card.name} gives back numbers that are off by {float(off):.2g} on {shape}"


def capture(card: Card) -> None:
    """After as many refreshes as stated, a gradient of the subspace's rank is in it whole, at any scale."""
    if "follows" not in card.example:
        return
    for scale in (1.0, 1e-25, 1e20):
        subspace, basis = make_subspace(card), None
        g = scale * (normal(8, subspace.rank) @ normal(subspace.rank, 20, seed=2))
        for _ in range(card.example["follows"]):
            basis = subspace.refresh(g, basis)
        off = float((subspace.up(subspace.down(g, basis), basis) / scale - g / scale).norm() / (g / scale).norm())
        assert off < 1e-3, f"{card.name} loses {off:.2g} of a gradient of its own rank, scaled by {scale:g}"


def zeros(card: Card) -> None:
    """Gradients of zeros, first or later, leave a finite basis, in which finite gradients have finite coordinates."""
    for first, second in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        subspace = make_subspace(card)
        basis = subspace.refresh(second * normal(8, 20), subspace.refresh(first * normal(8, 20)))
        matrix = subspace.up(subspace.down(normal(8, 20, seed=2), basis), basis)
        assert bool(torch.isfinite(matrix).all()), (
            f"{card.name} is not finite after gradients times {first}, {second}"
        )


def moments(card: Card) -> None:
    """Between equal bases moments stay; between others the mean is projected, and squares stay above zero."""
    subspace = make_subspace(card)
    old = subspace.refresh(normal(8, 20))
    new = subspace.refresh(normal(8, 20, seed=2), old)
    mean = normal(subspace.rank, 20, seed=3)
    state = {"mean": mean, "square": mean.square() + 0.1}
    before = {name: tensor.clone() for name, tensor in state.items()}
    if card.example.get("orthonormal", True):
        same = subspace.transport({name: tensor.clone() for name, tensor in before.items()}, old, old)
        for name, tensor in before.items():
            _near(same[name], tensor, torch.float32, f"{card.name} changes {name} between equal bases")
    moved = subspace.transport(state, old, new)
    expected = subspace.down(subspace.up(before["mean"], old), new)
    _near(moved["mean"], expected, torch.float32, f"{card.name} carries another mean over than the projected one")
    assert moved["square"].shape == mean.shape, f"{card.name} gives squares of shape {tuple(moved['square'].shape)}"
    fits = bool((moved["square"] >= 0).all()) and bool(torch.isfinite(moved["square"]).all())
    assert fits, f"{card.name} carries squares over that are below zero or not finite"


def storage(card: Card) -> None:
    """A basis that went through a file gives the same coordinates, and the same basis at the next refresh."""
    subspace, basis, g = make_subspace(card), None, normal(8, 20)
    for i in range(3):
        basis = subspace.refresh(normal(8, 20, seed=i), basis)
        again, fresh = read_back({"basis": basis})["basis"], make_subspace(card, seed=1)
        assert_same(fresh.down(g, again), subspace.down(g, basis), f"{card.name}, read back,")
        expected: Any = subspace.refresh(g, basis)
        assert_same(fresh.refresh(g, again), expected, f"the next basis of {card.name}, read back,")


def repeatable(card: Card) -> None:
    """The same gradients give the same bases, and torch's own generator and the gradient are left alone."""
    before, g = torch.get_rng_state(), normal(8, 20)
    bases = [make_subspace(card).refresh(g) for _ in range(2)]
    assert_same(bases[0], bases[1], f"{card.name} called twice")
    assert torch.equal(torch.get_rng_state(), before), f"{card.name} draws from torch's own generator"
    assert torch.equal(g, normal(8, 20)), f"{card.name} changes the gradient"


def _near(found: Tensor, expected: Tensor, dtype: torch.dtype, what: str) -> None:
    off = float((found.double() - expected.double()).norm())
    limit = 30 * torch.finfo(dtype).eps * max(1.0, float(expected.double().norm()))
    assert off < limit, f"{what}: off by {off:.2g}, more than rounding allows ({limit:.2g})"


CHECKS = (maps, inverse, capture, zeros, moments, storage, repeatable)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = ["CHECKS", "capture", "inverse", "make_subspace", "maps", "moments", "repeatable", "storage", "zeros"]
