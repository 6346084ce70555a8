"""Rounding to the nearest point of a block's grid."""

import doctest
import importlib

import pytest
import torch

from polyad._card import card
from polyad.formats import Quantized
from polyad.formats.stored.packing import unpack
from polyad.quantize import round_to_nearest

MODULE = importlib.import_module("polyad.quantize.round_to_nearest")  # the attribute is the function
SCHEMES = {
    "symmetric": {"symmetric": True},
    "zero code": {},
    "exact minimum": {"zero_dtype": torch.float32},
    "bfloat16 zero": {"zero_dtype": torch.bfloat16},
}


def seeded(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def spread(values, block, shape):
    for axis, b in enumerate(block):
        values = values.repeat_interleave(b, axis)
    return values[tuple(slice(n) for n in shape)]


def test_example():
    assert doctest.testmod(MODULE).failed == 0


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_number_is_within_half_a_step_of_its_grid(bits, scheme):
    x = seeded(6, 40) + 0.3
    q = round_to_nearest(x, bits, group=16, scale_dtype=torch.float32, **SCHEMES[scheme])
    step = spread(q.scale, q.block, x.shape)
    loose = 1.0 if scheme == "bfloat16 zero" and bits > 6 else 0.51 if scheme != "bfloat16 zero" else 0.6
    assert ((q.to_dense() - x).abs() <= loose * step).all()
    assert q.bits == bits
    assert q.shape == (6, 40)
    assert tuple(q.scale.shape) == (6, 3)
    assert (q.zero is None) == (scheme == "symmetric")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_codes_are_the_nearest_for_the_stored_scale_and_zero(scheme):
    x = seeded(16, 64) - 0.1
    q = round_to_nearest(x, 6, group=16, **SCHEMES[scheme])
    scale, zero = spread(q.scale.float(), q.block, x.shape), 32.0
    if q.zero is not None:
        zero = spread(q.zero.float(), q.block, x.shape)
    best = torch.stack([((c - zero) * scale - x).abs() for c in range(64)])
    mine = (q.to_dense() - x).abs()
    assert torch.allclose(mine, best.min(0).values, atol=1e-6)


@pytest.mark.parametrize("group", [None, 5, 7, 100, (4, 1), (3, 5), (2, 3, 5), (5, 9, 13)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_blocks_along_any_axis_agree_with_each_block_on_its_own(group, scheme):
    x = seeded(5, 9, 13)
    q = round_to_nearest(x, 4, group=group, **SCHEMES[scheme])
    dense = q.to_dense()
    for corner in [(0, 0, 0), (4, 8, 12), (2, 4, 6)]:
        cut = tuple(slice(c // b * b, c // b * b + b) for c, b in zip(corner, q.block, strict=True))
        alone = round_to_nearest(x[cut], 4, group=tuple(x[cut].shape), **SCHEMES[scheme])
        assert torch.equal(alone.to_dense(), dense[cut])


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_result_has_the_inputs_dtype_and_the_stated_storage(dtype):
    q = round_to_nearest(seeded(8, 64).to(dtype), 3, group=32, scale_dtype=torch.float16)
    assert q.dtype == q.to_dense().dtype == dtype
    assert q.scale.dtype == torch.float16
    assert q.nbytes == 8 * 64 * 3 // 8 + 8 * 2 * (2 + 1)
    assert isinstance(card("round_to_nearest").makes, type)


def test_float64_is_computed_in_float64():
    x = torch.tensor([[0.0, 1.0 / 3.0]], dtype=torch.float64)
    assert round_to_nearest(x, 1, scale_dtype=torch.float64).to_dense()[0, 1] == x[0, 1]


def test_layout_of_the_input_does_not_matter():
    x = seeded(40, 24)
    assert torch.equal(
        round_to_nearest(x.mT, 4, group=8).codes, round_to_nearest(x.mT.contiguous(), 4, group=8).codes
    )
    down = round_to_nearest(x, 4, group=(8, 1))
    assert torch.equal(down.transpose().to_dense(), round_to_nearest(x.mT, 4, group=8).to_dense())


def test_sizes_are_known_without_numbers():
    x = torch.empty(64, 64, device="meta")
    assert round_to_nearest(x, 4, group=16).nbytes == round_to_nearest(seeded(64, 64), 4, group=16).nbytes


def test_codes_use_the_whole_range():
    q = round_to_nearest(seeded(1, 4096), 4, scale_dtype=torch.float32)
    assert sorted(unpack(q.codes, 4, 4096).unique().tolist()) == list(range(16))
    q = round_to_nearest(seeded(1, 4096), 4, symmetric=True)
    assert set(unpack(q.codes, 4, 4096).unique().tolist()) <= set(range(1, 16))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"bits": 9}, "bits=9 cannot be packed"),
        ({"group": 0}, "group=0 does not fit x of shape"),
        ({"group": (1, 2, 3)}, "does not fit x of shape"),
        ({"scale_dtype": torch.int8}, "scale_dtype=torch.int8 cannot hold scales"),
        ({"zero_dtype": torch.int8}, "zero_dtype=torch.int8 cannot hold zero points"),
        ({"scale_dtype": torch.float16, "x": torch.full((2, 2), 1e-6)}, "4 of 4|2 of 2 blocks need one outside"),
        ({"scale_dtype": torch.float16, "x": torch.full((2, 2), 1e9)}, "choose a wider scale_dtype"),
        ({"x": torch.tensor([[float("nan"), 1.0]])}, "1 NaN"),
        ({"x": torch.tensor([[float("inf"), 1.0]])}, "1 infinite"),
        ({"x": torch.ones(0, 3)}, "is empty"),
    ],
)
def test_refusals(arguments, sentence):
    call = {"x": torch.ones(2, 2), "bits": 4, **arguments}
    with pytest.raises(ValueError, match=sentence):
        round_to_nearest(call.pop("x"), call.pop("bits"), **call)
    with pytest.raises(TypeError, match="float"):
        round_to_nearest(torch.ones(2, 2, dtype=torch.int32), 4)


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
