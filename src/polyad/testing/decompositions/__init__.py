"""The contract of a decomposition: what every function from a tensor to a format owes, whatever it is given.

``x`` is drawn as the card's example says (``example={"x": (6, 5, 4), "rank": 3}``: a shape, or a function of a
generator for methods that take no other tensors); everything else in the example is passed on.

>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("svd"))
"""

from __future__ import annotations

import inspect
import math

import torch

from polyad._card import Card
from polyad.testing._decomposition import (
    SLACK,
    assert_sentence,
    call_decomposition,
    dense,
    draw_tensor,
    error,
    is_refused,
)  # fmt: skip
from polyad.testing.decompositions._awkward_tensors import batches, beyond, masks, short
from polyad.testing.decompositions._planted import planted


def result(card: Card) -> None:
    """The kind that the card names, in x's shape and dtype, for float64, float32 and bfloat16; x is left alone."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = draw_tensor(card, dtype)
        before = x.clone()
        outcome = call_decomposition(card, x)
        assert card.makes is None or isinstance(outcome, card.makes), f"{card.name} made {outcome!r}"
        assert outcome.shape == tuple(x.shape), f"{card.name} of shape {tuple(x.shape)} has shape {outcome.shape}"
        assert outcome.dtype == dtype, f"{card.name} of {dtype} has dtype {outcome.dtype}"
        assert bool(torch.isfinite(dense(outcome)).all()), f"{card.name} of {dtype} holds NaN or infinite numbers"
        assert torch.equal(dense(before), dense(x)), f"{card.name} changed x in place"


def repeatable(card: Card) -> None:
    """The same input gives the same result to the last digit."""
    first, second = (call_decomposition(card, draw_tensor(card)).tensors() for _ in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), f"{card.name} called twice gives two different tensors {name}"


def scale(card: Card) -> None:
    """Entries of 1e-30 and 1e30 leave the same relative error, in float64 and float32.

    What can be decomposed at one scale alone, such as orthogonal matrices, is refused at every other.
    """
    for dtype in (torch.float64, torch.float32):
        x = draw_tensor(card, dtype)
        plain = error(call_decomposition(card, x), x)
        single = is_refused(card, 2 * x)
        for factor in (1e-30, 1e30):
            if single:
                assert is_refused(card, x * factor), f"{card.name} refuses x twice as large, and not {factor:g} times"
                continue
            scaled = error(call_decomposition(card, x * factor), x * factor)
            assert abs(scaled - plain) <= SLACK, f"{card.name}: error {plain:.6g}, and {scaled:.6g} at scale {factor}"


def awkward(card: Card) -> None:
    """Zero, constant and almost empty tensors: a finite result, exact for zeros, or a sentence; never a raw error."""
    x = draw_tensor(card)
    if x.is_sparse:
        return
    single = torch.zeros_like(x)
    single.view(-1)[0] = x.abs().max()
    for name, tensor in {"zero": torch.zeros_like(x), "constant": torch.ones_like(x), "one entry": single}.items():
        try:
            outcome = dense(call_decomposition(card, tensor))
        except ValueError as refused:
            assert_sentence(card, refused)
            continue
        assert bool(torch.isfinite(outcome).all()), f"{card.name} of a {name} tensor holds NaN or infinite numbers"
        assert name != "zero" or float(outcome.abs().max()) < 1e-9, f"{card.name} of zeros is not zero"


def layout(card: Card) -> None:
    """A view with other strides and a tensor that requires a gradient give the same result."""
    x = draw_tensor(card)
    if x.is_sparse:
        return
    strided = torch.stack((x, x), -1)[..., 0]
    plain = dense(call_decomposition(card, x))
    for name, tensor in {"strided": strided, "requires grad": x.clone().requires_grad_()}.items():
        outcome = dense(call_decomposition(card, tensor)).detach()
        off = float((outcome - plain).norm() / plain.norm().clamp(min=1e-30))
        assert off < SLACK, f"{card.name} of the same numbers ({name}) is off by {off:.3g}"


def gradients(card: Card) -> None:
    """Gradients, if any flow, are finite: for random and zero singular values, and for equal ones that are cut."""
    x = draw_tensor(card)
    if x.is_sparse:
        return
    equal = torch.zeros_like(x)
    equal[(torch.arange(min(x.shape)),) * x.ndim] = 1
    for tensor in (x, torch.ones_like(x), torch.zeros_like(x), equal):
        tensor = tensor.clone().requires_grad_()
        try:
            outcome = call_decomposition(card, tensor).to_dense()
        except ValueError:
            continue
        if outcome.requires_grad:
            outcome.square().sum().backward()
            grad = tensor.grad
            assert grad is not None, f"{card.name} needs a gradient and gives none to x"
            assert bool(torch.isfinite(grad).all()), f"the gradient of {card.name} is not finite"


def refusals(card: Card) -> None:
    """NaN, infinite, integer and empty tensors are refused with a sentence."""
    x = draw_tensor(card)
    if x.is_sparse:
        return
    nan, inf = x.clone(), x.clone()
    nan.view(-1)[-1], inf.view(-1)[0] = math.nan, math.inf
    empty = x.new_empty((0, *x.shape[1:]))
    for tensor in (nan, inf, x.long(), empty):
        try:
            call_decomposition(card, tensor)
        except (ValueError, TypeError) as refused:
            assert_sentence(card, refused)
        else:
            what = f"{tensor.dtype}, {int(tensor.isnan().sum())} NaN, shape {tuple(tensor.shape)}"
            raise AssertionError(f"{card.name} decomposed a tensor that it cannot have understood ({what})")


def complex_numbers(card: Card) -> None:
    """Complex tensors are refused with a sentence, or decomposed as well as real ones, imaginary parts and all.

    The same tensor times a complex number leaves the same error; one with phases of its own in every entry leaves no
    more than zero would; NaN in an imaginary part is refused.
    """
    x = draw_tensor(card)
    if x.is_sparse:
        return
    phases = torch.polar(torch.ones_like(x), 3 * draw_tensor(card, seed=1).reshape(x.shape))
    for dtype in (torch.complex128, torch.complex64):
        turned = ((0.6 + 0.8j) * x).to(dtype)
        try:
            outcome = call_decomposition(card, turned)
        except (ValueError, TypeError) as refused:
            assert_sentence(card, refused)
            continue
        assert outcome.dtype == dtype, f"{card.name} of {dtype} has dtype {outcome.dtype}"
        plain, off = error(call_decomposition(card, x), x), error(outcome, turned)
        assert off <= plain + SLACK, f"{card.name} leaves {plain:.4g}, and {off:.4g} of the same times a phase"
        mixed = (x * phases).to(dtype)
        for factor in (1.0, 1e-30, 1e30):
            off = error(call_decomposition(card, mixed * factor), mixed * factor)
            assert off < 1, f"{card.name} of complex numbers leaves {off:.4g} at scale {factor:g}"
        mixed.view(-1)[0] = torch.tensor(complex(1, math.nan))
        assert is_refused(card, mixed), f"{card.name} accepts NaN in an imaginary part"


def tolerance(card: Card) -> None:
    """The error is never above ``tol``, for random and for decaying tensors, in both precisions."""
    if "tol" not in inspect.signature(card.function).parameters or "rank" not in card.example:
        return
    for dtype in (torch.float64, torch.float32):
        x = draw_tensor(card, dtype)
        decay = x * torch.logspace(0, -6, x.shape[-1], dtype=dtype)
        for tol in (0.5, 0.1, 1e-3):
            for tensor in (x, decay, x.abs()):
                try:
                    remaining = error(call_decomposition(card, tensor, rank=None, tol=tol), tensor)
                except ValueError as refused:  # only what cannot be: signs, where none are allowed
                    assert bool((tensor < 0).any()), f"{card.name} refuses tol={tol:g} of a tensor without signs"
                    assert_sentence(card, refused)
                    continue
                assert remaining <= tol * (1 + 1e-4), f"{card.name} was asked for {tol:g} and leaves {remaining:.4g}"


CHECKS = (
    result, repeatable, planted, scale, awkward, layout, gradients, refusals, complex_numbers, tolerance, masks,
    beyond, short, batches,
)  # fmt: skip
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "SLACK", "awkward", "batches", "beyond", "call_decomposition", "complex_numbers", "draw_tensor",
    "error", "gradients", "layout", "masks", "planted", "refusals", "repeatable", "result", "scale", "short",
    "tolerance",
]  # fmt: skip
