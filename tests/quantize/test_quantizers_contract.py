"""Every quantiser of the catalogue, held to the public contract, and wrong ones that it must catch."""

import dataclasses

import pytest
import torch

import polyad.quantize  # noqa: F401
from polyad._card import Card, Paper, methods
from polyad.formats import Quantized
from polyad.formats.stored.packing import pack, unpack
from polyad.quantize import largest_error, least_distortion, round_to_nearest
from polyad.testing import quantizers

CASES = {f"{c.name}-{check.__name__}": (c, check) for c in methods("quantize") for check in quantizers.CHECKS}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


def right(x, bits, *, group=None, **given):
    return round_to_nearest(x, bits, group=group, scale_dtype=torch.float32, **given)


def recoded(q, change):
    codes = change(unpack(q.codes, q.bits, q.size[-1]).int()).clamp(0, 2**q.bits - 1)
    return dataclasses.replace(q, codes=pack(codes.to(torch.uint8), q.bits))


def shifted(x, bits, *, group=None):
    return recoded(right(x, bits, group=group), lambda codes: codes + 1)


def floored(x, bits, *, group=None):
    q = right(x, bits, group=group)
    lower = q.to_dense().double() > x.double()
    return recoded(q, lambda codes: codes - lower.int()) if not x.is_meta else q


def clipping(x, bits, *, group=None):
    return right(x, bits, group=group) if x.is_meta else least_distortion(x, bits, group=group)


def negated(x, bits, *, group=None):
    q = right(x, bits, group=group)
    return dataclasses.replace(q, scale=-q.scale)


def unpacked(x, bits, *, group=None):
    q = right(x, bits, group=group)
    return dataclasses.replace(q, bits=8, codes=unpack(q.codes, bits, q.size[-1])) if bits < 8 else q


def by_single_rows(x, bits, *, group=None):
    return right(x, bits, group=1)


def of_the_whole(x, bits, *, group=None):
    q = right(x, bits, group=group)
    whole = right(x.clamp(-10, 10) / x.abs().amax().clamp(min=1e-30), bits, group=group)
    return dataclasses.replace(whole, scale=whole.scale * x.abs().amax().float(), nominal=q.nominal)


def in_place(x, bits, *, group=None):
    return right(x.mul_(2), bits, group=group)


def widened(x, bits, *, group=None):
    return right(x.float(), bits, group=group)


def drawn(x, bits, *, group=None):
    return right(x + torch.rand(()) * x.abs().amax(), bits, group=group)


def of_four_bits(x, bits, *, group=None):
    return dataclasses.replace(right(x.round() if bits > 4 else x, bits, group=group), nominal=x.dtype)


def of_two_bits(x, bits, *, group=None):
    return right(x, min(bits, 2), group=group)


def kept_off_zero(x, bits, *, group=None):
    q = right(x, bits, group=group)
    return dataclasses.replace(q, scale=q.scale + 1e-8)


def overflowing(x, bits, *, group=None):
    size = x.float().square().sum().sqrt()
    q = right(x / size, bits, group=group)
    return dataclasses.replace(q, scale=q.scale * size, nominal=x.dtype)


def with_fewer(x, bits, *, group=None):
    return right(x, 9 - bits, group=group)


def upside_down(x, bits, *, group=None):
    return right(x.flip(0), bits, group=group)


def of_storage(x, bits, *, group=None):
    return right(x if x.is_contiguous() else 0 * x, bits, group=group)


def of_ones(x, bits, *, group=None):
    return right(x + (x == 0), bits, group=group)


def forgiving(x, bits, *, group=None):
    return right(x.nan_to_num(), bits, group=group)


def careless(x, bits, *, group=None):
    return right(x, max(1, min(int(bits), 8)), group=group)


def raw(x, bits, *, group=None):
    return right(x, bits, group=-(-x.shape[-1] // (x.shape[-1] // group)) if group else None)


WRONG = {
    "result": (in_place, widened, drawn),
    "nearest": (shifted, floored, negated, upside_down),
    "error_bound": (shifted, clipping, floored),
    "stored_bytes": (unpacked, by_single_rows, of_two_bits),
    "more_bits": (of_two_bits, of_four_bits, with_fewer),
    "scale": (kept_off_zero, of_the_whole, overflowing),
    "block_independence": (of_the_whole, upside_down, drawn),
    "awkward_numbers": (of_storage, of_ones, drawn),
    "refusals": (forgiving, careless, raw),
}
SPOILT = {f"{prop}-{wrong.__name__}": (prop, wrong) for prop, all_of_it in WRONG.items() for wrong in all_of_it}


def card(function, **more):
    source = Paper("Nobody", 2000, "Nothing", "arXiv:0")
    return Card("spoilt", "quantize", function, Quantized, (source,), {"bits": 4, "group": 32, **more})


@pytest.mark.parametrize(("prop", "wrong"), SPOILT.values(), ids=list(SPOILT))
def test_each_check_catches_quantisers_that_break_it(prop, wrong):
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        getattr(quantizers, prop)(card(wrong))


@pytest.mark.parametrize("check", quantizers.CHECKS, ids=lambda check: check.__name__)
def test_the_quantiser_that_the_wrong_ones_spoil_is_right(check):
    check(card(right, bound=largest_error))


def test_the_stated_bound_is_nearly_reached_and_no_half_scale():
    """A scale of bfloat16 that is rounded down leaves the block's end outside the grid."""
    x = torch.linspace(0, 1, 4096)[:, None] * torch.linspace(-1, 1, 64)
    q = round_to_nearest(x + 0.3 * x.abs(), 8)
    off = ((q.dequantize(torch.float64) - (x + 0.3 * x.abs()).double()).abs() / q.scale.double()).nan_to_num()
    assert 1.3 < float(off.max()) <= largest_error(q) == 1.5
