"""The check that a decomposition keeps the greater part of a tensor that nearly has its form."""

from __future__ import annotations

import torch

from polyad._card import Card
from polyad.testing._contract import seeded_generator
from polyad.testing._decomposition import call_decomposition, dense, draw_tensor, error, is_refused

NOISE = 1e-3
"""What is added to a tensor of the method's form, as a share of its norm."""
EXACT = 1e-6
"""The relative error that iterations may leave of one without noise."""


def planted(card: Card) -> None:
    """A tensor of the method's own form and sizes, beside a thousandth of noise, is found but for such noise.

    Where the method refuses what is not of its form, without noise.
    """
    x = draw_tensor(card)
    if x.is_sparse:
        return
    form = dense(call_decomposition(card, x)).double()
    other = torch.randn(form.shape, generator=seeded_generator(4), dtype=torch.float64)
    tensor, limit = form + NOISE * form.norm() / other.norm() * other, 5 * NOISE
    if is_refused(card, tensor):
        tensor, limit = form, EXACT
    remaining = error(call_decomposition(card, tensor), tensor)
    assert remaining < limit, (
        f"{card.name} leaves {remaining:.3g} of a tensor that is of its own form up to {limit:g}"
    )
