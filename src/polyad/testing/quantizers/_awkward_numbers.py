"""Contract checks of quantisers on what people meet by accident: zeros, odd strides, wrong arguments."""

from __future__ import annotations

import math

import torch

from polyad._card import Card
from polyad.testing._contract import normal
from polyad.testing._refusals import assert_refused, result_or_refusal
from polyad.testing.quantizers._subject import call_quantizer, exact, variants


def awkward_numbers(card: Card) -> None:
    """Zeros come back as zeros; views, strides and what requires a gradient give what plain tensors give."""
    x = normal(6, 40)
    tiny = torch.full((2, 8), 1e-40)
    for options in variants(card):
        dense = exact(call_quantizer(card, torch.cat((torch.zeros(3, 40), x)), options))
        assert float(dense[:3].abs().max()) < 1e-30, f"{card.name} of zeros is not zero ({dict(options)})"
        plain = call_quantizer(card, x, options)
        views = {"strided": torch.stack((x, x), -1)[..., 0], "transposed": x.mT.contiguous().mT}
        views["requires grad"] = x.clone().requires_grad_()
        for name, view in views.items():
            off = not torch.equal(exact(call_quantizer(card, view, options)), exact(plain))
            assert not off, f"{card.name} of the same numbers ({name}) is something else ({dict(options)})"
        q = result_or_refusal(card, "subnormal numbers", lambda o=options: call_quantizer(card, tiny, o))
        near = q is None or float((exact(q) - tiny).abs().max()) < 1e-37
        assert near, f"{card.name} of subnormal numbers is far off"


def refusals(card: Card) -> None:
    """Tensors that are not finite and real, numbers of bits and groups that do not fit are refused by name."""
    x = normal(4, 8)
    nan, inf = x.clone(), x.clone()
    nan[1, 2], inf[3, 7] = math.nan, math.inf
    tensors = {"NaN": nan, "infinity": inf, "integers": x.long(), "complex": x.to(torch.complex64)}
    tensors |= {"nothing": x[:0], "no dimension": x[0, 0], "a list": x.tolist()}
    for what, tensor in tensors.items():
        assert_refused(card, what, lambda g=tensor: call_quantizer(card, g), "x ")
    for bits in (0, -1, 9, 2.5, "4", None, True):
        assert_refused(card, f"bits={bits!r}", lambda b=bits: call_quantizer(card, x, bits=b), "bits")
    for group in (0, -8, (), (1, 2, 3), (0, 4), 2.5, "8"):
        assert_refused(card, f"group={group!r}", lambda g=group: call_quantizer(card, x, group=g), "group")
