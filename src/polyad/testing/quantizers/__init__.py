"""The contract of a quantiser: what every function from a tensor to integer codes with scales owes.

It is called with the card's ``example``, in which two entries are for the contract alone. ``options`` lists further
arguments, and all must hold under each of them too. ``bound`` is a function of the result that gives the largest
error of any number in scales; half a scale where it is left out, ``math.inf`` where far numbers are clipped. Codes
are held to their grid where the result is a ``Quantized``.

>>> from polyad._card import card
>>> nearest(card("block_floating_point"))
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from polyad._card import Card
from polyad.formats import Format, Quantized
from polyad.formats.stored.packing import packed_length
from polyad.testing._contract import normal, seeded
from polyad.testing._refusals import result_or_refusal
from polyad.testing.quantizers._awkward_numbers import awkward_numbers, refusals
from polyad.testing.quantizers._subject import (
    call_quantizer,
    every_result,
    exact,
    grid,
    numbers,
    relative_error,
    variants,
)

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def result(card: Card) -> None:
    """The kind that the card names, finite, in x's shape and dtype and the bits asked for, twice the same.

    For one to three dimensions and groups that divide or do not; x is left alone.
    """
    shapes = {(6, 40): (None, 8, 7, 100, (4, 1), (5, 9)), (40,): (None, 16), (2, 3, 20): (8, (2, 1), (2, 3, 5))}
    for options in variants(card):
        for dtype in DTYPES:
            for shape, groups in shapes.items():
                for group in groups:
                    x = normal(*shape).to(dtype)
                    before = x.clone()
                    q, again = (call_quantizer(card, x, options, group=group) for _ in range(2))
                    what = f"{card.name} of shape {shape}, {dtype}, group={group}, {dict(options)}"
                    assert isinstance(q, card.makes or Format), f"{what} made {q!r}"
                    assert (q.shape, q.dtype) == (shape, dtype), f"{what} has shape {q.shape} and dtype {q.dtype}"
                    dense = q.to_dense()
                    assert bool(torch.isfinite(dense).all()), f"{what} holds NaN or infinite numbers"
                    assert torch.equal(x, before), f"{what} changed x in place"
                    assert torch.equal(dense, again.to_dense()), f"{what} called twice gives two results"


def nearest(card: Card) -> None:
    """Every code is the nearest point of its block's grid, as scales and zero points are stored."""
    for what, x, q in every_result(card):
        if not isinstance(q, Quantized):
            continue
        scale, zero = grid(q)
        wide = x.double()
        best = (wide / scale + zero).round().clamp(0, 2**q.bits - 1)
        best = ((best - zero) * scale - wide).abs()
        slack = 1e-3 * scale + 8 * torch.finfo(torch.float32).eps * (wide.abs() + zero.abs() * scale)
        off = ((exact(q) - wide).abs() - best - slack) / scale
        assert float(off.max()) <= 0, (
            f"{card.name}: a code of {what} is {float(off.max()):.3g} scales from the nearest"
        )


def error_bound(card: Card) -> None:
    """No error is larger than the card's ``bound`` times its block's scale."""
    for what, x, q in every_result(card):
        if not isinstance(q, Quantized):
            continue
        scale, zero = grid(q)
        limit = card.example["bound"](q) if "bound" in card.example else 0.5
        rounding = 8 * torch.finfo(torch.float32).eps * (x.double().abs() + zero.abs() * scale)
        off = float((((exact(q) - x.double()).abs() - rounding) / scale).max())
        assert off <= limit * (1 + 1e-6), f"{card.name}: an error of {what} is {off:.4g} scales, not {limit:.4g}"


def stored_bytes(card: Card) -> None:
    """Bytes are those of the shapes: codes of the bits asked for, and one scale and zero point for each block.

    They are known before there are numbers: a tensor on the meta device gives the same.
    """
    for options in variants(card):
        for bits in (2, 3, 4, 8):
            for shape, group in (((6, 40), 8), ((6, 41), 8), ((3, 5, 24), None)):
                q = call_quantizer(card, normal(*shape), options, bits=bits, group=group)
                what = f"{card.name} of shape {shape} in {bits} bits, group={group}, {dict(options)}"
                if isinstance(q, Quantized):
                    rows, blocks = math.prod(shape[:-1]), -(-shape[-1] // (group or shape[-1]))
                    zero = q.zero.element_size() if isinstance(q.zero, Tensor) else 0
                    side = rows * blocks * (q.scale.element_size() + zero)
                    stated = rows * packed_length(shape[-1], bits) + side
                    assert q.nbytes == stated, f"{what} takes {q.nbytes} bytes; its shapes say {stated}"
                stored = sum(t.nbytes for t in q.tensors().values())
                assert q.nbytes >= stored, f"{what} says {q.nbytes} bytes and stores {stored}"
                empty = call_quantizer(card, torch.empty(shape, device="meta"), options, bits=bits, group=group)
                assert empty.nbytes == q.nbytes, f"{what} takes {q.nbytes} bytes, and {empty.nbytes} without numbers"


def more_bits(card: Card) -> None:
    """One bit more is never worse on normal numbers, and eight leave less than three per cent."""
    x = normal(32, 256)
    for options in variants(card):
        before = math.inf
        for bits in range(1, 9):
            call = functools.partial(call_quantizer, card, x, options, bits=bits)
            q = result_or_refusal(card, f"bits={bits}", call, "bits=")
            if q is None:
                assert bits == 1, f"{card.name} refuses bits={bits}"
                continue
            off = relative_error(q, x)
            assert off <= before * (1 + 1e-6), (
                f"{card.name} leaves {off:.4g} with {bits} bits, {before:.4g} with one less"
            )
            before = off
        assert before < 0.03, f"{card.name} leaves {before:.3g} of normal numbers in eight bits"


def scale(card: Card) -> None:
    """Powers of two from 1e-30 to 1e30, and one of 1e200 in float64, pass through exactly, or are refused."""
    for options in variants(card):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            x = normal(6, 40).to(dtype)
            plain = exact(call_quantizer(card, x, options))
            for power in (-100, -76, -20, 5, 40, 63, 100, *((660,) if dtype == torch.float64 else ())):
                tensor = x * 2.0**power
                what = f"{dtype} times 2**{power} ({dict(options)})"
                q = result_or_refusal(card, what, lambda g=tensor, o=options: call_quantizer(card, g, o))
                off = 0.0 if q is None else relative_error(q, plain * 2.0**power)
                assert off == 0, f"{card.name}: x of {what} is off by {off:.3g} from 2**{power} times that of x"


def block_independence(card: Card) -> None:
    """A block depends on its own numbers alone: permuting rows permutes, cutting cuts, transposing transposes."""
    x = numbers()["sizes"]
    order = torch.randperm(6, generator=seeded())
    for options in variants(card):
        whole = exact(call_quantizer(card, x, options, group=16))
        permuted = exact(call_quantizer(card, x[order], options, group=16))
        assert torch.equal(permuted, whole[order]), f"{card.name} of permuted rows is not permuted ({dict(options)})"
        last = exact(call_quantizer(card, x[2:3, 32:], options, group=16))
        assert torch.equal(last, whole[2:3, 32:]), f"{card.name} of one block alone is another ({dict(options)})"
        down = exact(call_quantizer(card, x.mT, options, group=(16, 1)))
        assert torch.equal(down.mT, whole), f"{card.name} down the columns is not that along rows ({dict(options)})"
        cube = normal(5, 9, 13)
        for block in ((1, 1, 5), (1, 4, 1), (1, 3, 5), (2, 3, 5), (5, 9, 13)):
            corner = tuple(slice((n - 1) // b * b, n) for n, b in zip(cube.shape, block, strict=True))
            inside = exact(call_quantizer(card, cube, options, group=block))[corner]
            alone = exact(call_quantizer(card, cube[corner], options, group=block))
            assert torch.equal(alone, inside), f"{card.name}: the last block of {block} alone is another"


CHECKS = (result, nearest, error_bound, stored_bytes, more_bits, scale, block_independence, awkward_numbers, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "awkward_numbers", "block_independence", "call_quantizer", "error_bound", "exact", "more_bits",
    "nearest", "numbers", "refusals", "relative_error", "result", "scale", "stored_bytes", "variants",
]  # fmt: skip
