"""Quantisers against their definitions, block by block and number by number in float64."""

import itertools
import math

import pytest
import torch

from polyad.quantize import block_floating_point, least_distortion, normal_float, round_to_nearest
from polyad.quantize.methods.least_distortion import AROUND, GAUSSIAN

SHAPE = (3, 6, 10)


def numbers(seed=0, scale=1.0, offset=0.0):
    """Blocks of unequal sizes, with an offset, and zeros in one of them."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x * torch.logspace(-1, 1, 10) * scale + offset
    x[1, :4] = 0
    return x


def blocks(group):
    """The places of every block: along the last axis, or aligned with the last axes."""
    sides = (1,) * (3 - len(group)) + group
    starts = [range(0, n, b) for n, b in zip(SHAPE, sides, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(first, first + b) for first, b in zip(corner, sides, strict=True))


GROUPS = {"rows": (10,), "five": (5,), "short": (4,), "down": (3, 1), "square": (4, 3)}
CASES = list(itertools.product(GROUPS.values(), (1, 2, 4, 8)))


def nearest(block, scale, zero, bits):
    """The grid's nearest points, ties upwards."""
    codes = [min(max(math.floor(v / scale + zero + 0.5), 0), 2**bits - 1) for v in block.flatten().tolist()]
    return torch.tensor(codes, dtype=torch.float64).reshape(block.shape)


def near(result, expected, tol=1e-12):
    torch.testing.assert_close(result, expected, rtol=tol, atol=tol)


@pytest.mark.parametrize(("group", "bits"), CASES)
@pytest.mark.parametrize("offset", [0.0, 20.0, -20.0])
@pytest.mark.parametrize("kind", ["symmetric", "code", "floating"])
def test_round_to_nearest_spans_each_block(group, bits, offset, kind):
    x = numbers(offset=offset)
    options = {"symmetric": {"symmetric": True}, "code": {}, "floating": {"zero_dtype": torch.float32}}[kind]
    q = round_to_nearest(x, bits, group=group if len(group) > 1 else group[0], scale_dtype=torch.float32, **options)
    expected = torch.empty_like(x)
    for at in blocks(group):
        block, codes = x[at], 2**bits - 1
        low, high = float(block.min()), float(block.max())
        if kind == "symmetric":
            middle = 2 ** (bits - 1) if bits > 1 else 0.5
            scale, zero = max(high, -low) / (2 ** (bits - 1) - 1 if bits > 1 else 0.5), middle
        elif kind == "code":
            low, high = min(low, 0.0), max(high, 0.0)
            scale = (high - low) / codes
        else:
            scale = max((high - low) / codes, max(high, -low) * 2**-24)
        scale = float(torch.tensor(scale, dtype=torch.float32)) or 1.0
        if kind == "code":
            zero = min(max(round(-low / scale), 0), codes)
        elif kind == "floating":
            zero = float(torch.tensor(-low / scale, dtype=torch.float32))
        expected[at] = (nearest(block, scale, zero, bits) - zero) * (scale if block.any() else 0.0)
    near(q.to_dense(), expected)


@pytest.mark.parametrize(("group", "bits"), CASES)
def test_least_distortion_takes_the_best_of_the_steps_around_a_normal_one(group, bits):
    x = numbers(7)
    q = least_distortion(x, bits, group=group if len(group) > 1 else group[0], scale_dtype=torch.float32)
    back, half = q.to_dense(), 2 ** (bits - 1)
    for at in blocks(group):
        block = x[at]
        ideal = float(block.square().mean().sqrt()) * GAUSSIAN[bits]
        if not ideal:
            assert back[at].abs().max() < 1e-35
            continue
        tried = {}
        for factor in AROUND:
            step = float(torch.tensor(ideal * factor, dtype=torch.float32))
            coded = ((block / step).floor().clamp(-half, half - 1) + 0.5) * step
            tried[float((coded - block).square().sum())] = coded
        near(back[at], tried[min(tried)], 1e-9)


@pytest.mark.parametrize("group", [(10,), (5,), (3, 1)])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_block_floating_point_is_the_nearest_multiple_of_a_power_of_two(group, bits):
    x = numbers(3, 100.0)
    q = block_floating_point(x, bits, group=group if len(group) > 1 else group[0])
    for at in blocks(group):
        block, half = x[at], 2 ** (bits - 1)
        if not block.any():
            assert not q.to_dense()[at].any()
            continue
        step = 2.0 ** (math.floor(math.log2(float(block.abs().max()))) + 2 - bits)
        near(q.to_dense()[at], (block / step).round().clamp(-half, half - 1) * step)


def test_block_floating_point_refuses_what_a_byte_of_exponent_cannot_hold():
    """The step is 2**(e + 2 - bits), and 2**127 the largest."""
    for bits in (2, 4, 8):
        largest = torch.tensor([[2.0 ** (125 + bits)]], dtype=torch.float64)
        assert float(block_floating_point(largest, bits).scale.float()) == 2.0**127
        with pytest.raises(ValueError, match=rf"numbers of 2\*\*{126 + bits}, whose step"):
            block_floating_point(2 * largest, bits)
        least = torch.tensor([[2.0**-140]], dtype=torch.float64)
        assert float(block_floating_point(least, bits).scale.float()) == 2.0**-126


@pytest.mark.parametrize("power", [100, -60, 60])
def test_least_distortion_is_the_same_at_any_power_of_two(power):
    """Squares of what is beyond half of single precision's exponents are neither infinite nor zero."""
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    x[:, 3], x[0, 4] = 0, 1e-12
    plain, scaled = (least_distortion(x * factor, 3, scale_dtype=torch.float32) for factor in (1.0, 2.0**power))
    assert torch.equal(scaled.to_dense(), plain.to_dense() * 2.0**power)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_next_to_the_largest_come_back_finite_or_are_refused(dtype, sign):
    x = sign * torch.tensor([[torch.finfo(dtype).max, 0.9 * torch.finfo(dtype).max, 1.0, 0.0]]).to(dtype)
    refusals = []
    for bits, options in itertools.product((1, 2, 4, 8), ({}, {"symmetric": True}, {"zero_dtype": torch.float32})):
        try:
            q = round_to_nearest(x, bits, **options)
        except ValueError as refusal:
            refusals.append(str(refusal))
        else:
            assert q.to_dense().isfinite().all()
    assert refusals
    assert all("next to the largest" in said or "holds scales up to" in said for said in refusals)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scales_of_a_table_are_fitted_to_their_codes(dtype):
    x = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)) ** 3
    stored = normal_float(x, 4, group=32, scale_dtype=dtype)
    table, blocks = stored.levels, x.reshape(64, 3, 32)
    least = torch.full((64, 3), torch.inf)
    for share in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7):  # the scales that span a share of the largest number
        for end in (1.0, -1.0):
            scale = (blocks.abs().amax(-1, keepdim=True) * share).to(dtype).float() * end
            near = table[((blocks / scale)[..., None] - table).abs().argmin(-1)]
            least = torch.minimum(least, (near * scale - blocks).square().sum(-1))
    reached = (stored.to_dense() - x).reshape(64, 3, 32).square().sum(-1)
    assert bool((reached <= least * (1 + 1e-4)).all())
    assert float(reached.sum()) < 0.97 * float(least.sum())
    zeros = normal_float(torch.zeros(2, 64), 4, group=32)
    assert torch.equal(zeros.to_dense(), torch.zeros(2, 64))
