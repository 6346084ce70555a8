"""Rounding to the nearest point of a block's grid."""

import doctest
import importlib

import pytest
import torch

from polyad.formats import Quantized
from polyad.formats.stored.packing import unpack
from polyad.quantize import least_distortion, round_to_nearest
from polyad.quantize.methods.round_to_nearest import largest_error

MODULE = importlib.import_module("polyad.quantize.round_to_nearest")  # the attribute is the function
SCHEMES = {
    "symmetric": {"symmetric": True},
    "zero code": {},
    "exact minimum": {"zero_dtype": torch.float32},
    "bfloat16 zero": {"zero_dtype": torch.bfloat16},
}


def seeded(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_example():
    assert doctest.testmod(MODULE).failed == 0


def test_groups_are_aligned_with_the_last_axes():
    x = seeded(2, 3, 128, 8)
    assert round_to_nearest(x, 2).block == (1, 1, 1, 8)
    assert round_to_nearest(x, 2, group=4).block == (1, 1, 1, 4)
    assert round_to_nearest(x, 2, group=(64, 1)).block == (1, 1, 64, 1)
    assert tuple(round_to_nearest(x, 2, group=(64, 1)).scale.shape) == (2, 3, 2, 8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [0.3, -0.3, 1e-30, -1234.5])
def test_constant_blocks_come_back_within_the_scales_precision(bits, scheme, value):
    q = round_to_nearest(torch.full((2, 32), value), bits, group=8, **SCHEMES[scheme])
    assert torch.allclose(q.to_dense(), torch.tensor(value), rtol=2**-7, atol=0)


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_zeros_come_back_exactly(bits, scheme):
    x = torch.cat([torch.zeros(3, 16), seeded(3, 16)])
    dense = round_to_nearest(x, bits, **SCHEMES[scheme]).to_dense()
    assert (dense[:3] == 0).all()
    assert dense[3:].norm() > 0.1


def test_a_zero_code_keeps_single_zeros():
    x = seeded(8, 32).abs() + 1
    x[:, 5] = 0
    assert (round_to_nearest(x, 3).to_dense()[:, 5] == 0).all()


def test_large_offsets_stay_within_the_zero_points_precision():
    x = 1000 + seeded(4, 64)
    error = (round_to_nearest(x, 4, zero_dtype=torch.bfloat16).to_dense() - x).abs().max()
    assert error < 1000 * 2**-7
    error = (round_to_nearest(x, 4, zero_dtype=torch.float32, scale_dtype=torch.float32).to_dense() - x).abs().max()
    assert error < 0.51 * (x.max() - x.min()) / 15


def test_scales_and_zero_points_are_stored_as_asked():
    q = round_to_nearest(seeded(8, 64), 3, group=32, scale_dtype=torch.float16, zero_dtype=torch.float16)
    assert q.scale.dtype == q.zero.dtype == torch.float16


def test_zero_points_fit_the_dtype_in_which_they_are_subtracted():
    x = torch.tensor([[100.0, 100.0], [-3.0, -3.0]], dtype=torch.float16)
    dense = round_to_nearest(x, 2, zero_dtype=torch.float32, scale_dtype=torch.float32).to_dense()
    assert torch.allclose(dense, x, rtol=2**-9)


def test_float64_is_computed_in_float64():
    x = torch.tensor([[0.0, 1.0 / 3.0]], dtype=torch.float64)
    assert round_to_nearest(x, 1, scale_dtype=torch.float64).to_dense()[0, 1] == x[0, 1]


def test_codes_use_the_whole_range():
    q = round_to_nearest(seeded(1, 4096), 4, scale_dtype=torch.float32)
    assert sorted(unpack(q.codes, 4, 4096).unique().tolist()) == list(range(16))
    q = round_to_nearest(seeded(1, 4096), 4, symmetric=True)
    assert set(unpack(q.codes, 4, 4096).unique().tolist()) <= set(range(1, 16))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"scale_dtype": torch.int8}, "scale_dtype=torch.int8 cannot hold scales"),
        ({"zero_dtype": torch.int8}, "zero_dtype=torch.int8 cannot hold zero points"),
        ({"scale_dtype": torch.float16, "x": torch.full((2, 2), 1e9)}, "2 of 2 blocks need a larger one, such as 6"),
        (
            {"x": torch.tensor([[65504.0, -20000.0]]).half(), "bits": 1},
            "next to the largest of torch.float16, .* to infinity",
        ),
    ],
)
def test_refusals(arguments, sentence):
    call = {"x": torch.ones(2, 2), "bits": 4, **arguments}
    with pytest.raises(ValueError, match=sentence):
        round_to_nearest(call.pop("x"), call.pop("bits"), **call)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1e-39, 1e-38, 1e-12, 3e-7, 3e-4, 2.0])
def test_one_small_group_is_rounded_like_the_others_or_becomes_zeros(size, dtype, bits, scheme):
    x = seeded(4, 64)
    whole = round_to_nearest(x, bits, group=16, **{**SCHEMES[scheme], "scale_dtype": dtype}).to_dense()
    x[1, 16:32] *= size / x[1, 16:32].abs().max()
    q = round_to_nearest(x, bits, group=16, **{**SCHEMES[scheme], "scale_dtype": dtype})
    dense = q.to_dense()
    others = torch.ones(4, 64, dtype=torch.bool)
    others[1, 16:32] = False
    assert torch.equal(dense[others], whole[others])
    scale = float(q.scale[1, 1])
    error = float((dense - x)[1, 16:32].abs().max())
    assert 0 < error <= largest_error(q) * scale * 1.001
    span = 2 * size / max(1, 2**bits - (3 if q.zero is None else 1)) if bits > 1 else 2 * size
    least = 2.0**-24 if dtype == torch.float16 else torch.finfo(dtype).smallest_normal
    moved = 0.5 * size * torch.finfo(q.zero.dtype).eps if q.zero is not None and q.zero.is_floating_point() else 0
    assert scale <= max(span, moved) * (1 + torch.finfo(dtype).eps) + least  # as narrow as the dtype can have it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_at_half_the_largest_of_a_dtype(dtype):
    x = (seeded(4, 64).clamp(-1, 1) * 0.5 * torch.finfo(dtype).max).to(dtype)
    x[0, :2] = torch.tensor([0.6, -0.6]) * torch.finfo(dtype).max  # their difference is beyond the dtype
    q = round_to_nearest(x, 4, group=16, scale_dtype=torch.float32)
    assert bool(torch.isfinite(q.to_dense()).all())
    error = (q.to_dense().double() - x.double()).abs().max()
    assert error <= 0.52 * q.scale.double().max()


def test_the_format_works_as_a_weight():
    q = round_to_nearest(seeded(12, 32), 8, group=8)
    x = seeded(3, 32, seed=1)
    assert isinstance(q, Quantized)
    assert torch.allclose(q.linear(x), x @ q.to_dense().mT, atol=1e-5)


@pytest.mark.parametrize("bits", [1, 3, 4, 8])
@pytest.mark.parametrize("block", [(8, 1), (1, 8), (4, 8), (1, 32), (24, 1), (5, 1)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_few_rows_meet_codes_whose_scales_they_took(block, bits, scheme):
    w = seeded(2, 3, 24, 32) + 1
    q = round_to_nearest(w, bits, group=block, **SCHEMES[scheme])
    for rows in (1, 3, 20):
        x, p = seeded(2, 3, rows, 32, seed=1), seeded(2, 3, rows, 24, seed=2)
        assert torch.allclose(q.linear(x), x @ q.to_dense().mT, atol=1e-4)
        assert torch.allclose(q.combine(p), p @ q.to_dense(), atol=1e-4)
    flat = round_to_nearest(w[0, 0], bits, group=block, **SCHEMES[scheme])
    for shape in ((32,), (3, 32), (2, 2, 32)):
        x = seeded(*shape, seed=3)
        assert torch.allclose(flat.linear(x), x @ flat.to_dense().mT, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-36, 1e-23, 1e19, 1e37])
def test_least_distortion_at_any_scale(scale):
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = float((least_distortion(x, 4).to_dense() - x).norm())
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        scaled = (x * scale).to(dtype)
        missed = least_distortion(scaled, 4).to_dense().double() - scaled.double()
        assert float(missed.norm()) / scale == pytest.approx(exact, rel=0.02)
        with pytest.raises(ValueError, match=r"choose a wider scale_dtype or (divide|multiply) x first"):
            least_distortion(scaled, 4, scale_dtype=torch.float16)
