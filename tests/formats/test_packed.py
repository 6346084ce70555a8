"""Quantised matrices in the layouts of torch's kernels: the same numbers, and bit for bit the same codes."""

import dataclasses

import pytest
import torch

from polyad.formats import Quantized
from polyad.formats.stored import nibbles, packed_digits, packed_eight, packed_four
from polyad.formats.stored.packed_eight import PackedEight
from polyad.formats.stored.packed_four import PackedFour
from polyad.quantize import round_to_nearest

ERROR = 2.0**-7
"""Four times what bfloat16 rounds off."""
SIZES = ((64, 64), (48, 100), (33, 70), (7, 5), (130, 300))
GRIDS = {
    "integers": {}, "symmetric": {"symmetric": True, "scale_dtype": torch.float16},
    "exact minima": {"scale_dtype": torch.float32, "zero_dtype": torch.float32},
}  # fmt: skip


def quantised(size, bits, group, seed=0, **grid):
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return round_to_nearest(x, bits, group=group, **grid)


def rows(count, columns):
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(9)).bfloat16()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
@pytest.mark.parametrize("group", [32, 64, 96, 128, 256, None])
@pytest.mark.parametrize("bits", range(2, 9))
def test_products_rows_and_codes(bits, group, grid):
    for size in SIZES:
        source = quantised(size, bits, group, **grid)
        packed = source.prepare("cpu")
        exact, x = source.to_dense(), rows(3, size[1])
        expected = x.float() @ exact.mT
        few = packed.few(x)[:, : size[0]]
        assert few.dtype == torch.bfloat16
        assert (few.float() - expected).norm() <= ERROR * expected.norm(), size
        torch.testing.assert_close(packed.many(x.float()), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            packed.linear(x.double()[None]), (x.double() @ source.dequantize(torch.float64).mT)[None]
        )
        assert (packed.many(x).float() - expected).norm() <= ERROR * expected.norm(), size
        index = torch.tensor([[0, size[0] - 1], [size[0] // 2, -1]])
        assert torch.equal(packed.rows(index), source.rows(index))
        restored = packed.restore()
        assert restored.spec() == source.spec()
        assert all(torch.equal(restored.tensors()[name], t) for name, t in source.tensors().items())


@pytest.mark.parametrize(
    ("kernel", "bits", "group", "groups"),
    [("packed4", 4, 32, 16), ("packed4", 4, 128, 4), ("packed4", 8, 64, 2 * 8), ("packed8", 8, None, 0.5)],
)
def test_memory_is_that_of_the_codes_and_of_scales_and_shifts_in_two_bytes(kernel, bits, group, groups):
    source = quantised((256, 512), bits, group, symmetric=kernel == "packed8")
    assert source.prepare("cpu", kernel).nbytes == source.nbytes + 256 * groups * 2 * 2


def test_rows_that_share_a_scale():
    codes = torch.randint(0, 256, (40, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scale = torch.rand(5, 2, generator=torch.Generator().manual_seed(1)) + 0.5
    source = Quantized(codes, scale, 120.0, 8, (40, 96), (8, 64))
    packed, x = source.prepare("cpu"), rows(2, 96)
    expected = x.float() @ source.to_dense().mT
    assert isinstance(packed, PackedFour)
    assert (packed.few(x)[:, :40].float() - expected).norm() <= ERROR * expected.norm()
    torch.testing.assert_close(packed.many(x.float()), expected, rtol=1e-4, atol=1e-2)
    assert torch.equal(packed.rows(torch.tensor([9, 39])), source.rows(torch.tensor([9, 39])))


def test_a_zero_point_far_from_the_codes():
    base = quantised((64, 64), 8, None, zero_dtype=torch.float32, scale_dtype=torch.float32)
    source = dataclasses.replace(base, zero=base.zero - 300)
    packed, x = source.prepare("cpu"), rows(2, 64)
    expected = x.float() @ source.to_dense().mT
    assert (packed.few(x)[:, :64].float() - expected).norm() <= 2 * ERROR * expected.norm()


def test_none_where_nothing_fits(monkeypatch):
    fits = quantised((64, 64), 4, 32)
    assert fits.prepare("cuda") is None
    assert fits.prepare("cpu", "packed8") is None
    assert quantised((64, 64), 4, 16).prepare("cpu") is None  # torch's operator knows no groups of 16
    assert quantised((64, 64), 4, (64, 1)).prepare("cpu") is None
    assert quantised((64, 64), 1, 32).prepare("cpu") is None  # four times the bytes
    assert quantised((2, 64, 64), 4, 32).prepare("cpu") is None
    for scale in (3e38, 1e-41, float("inf")):  # beyond bfloat16, or coarser there
        one = dataclasses.replace(fits, scale=torch.full((64, 2), scale))
        assert one.prepare("cpu") is None, scale
    monkeypatch.setattr(packed_four, "four_bit_operator", lambda: None)
    monkeypatch.setattr(packed_eight, "eight_bit_operator", lambda: None)
    monkeypatch.setattr(packed_digits, "byte_operator", lambda: None)
    assert fits.prepare("cpu") is None
    assert quantised((64, 64), 8, None).prepare("cpu") is None


def test_a_scale_a_row_takes_the_8_bit_product_and_groups_the_4_bit_one():
    assert isinstance(quantised((64, 64), 8, None, symmetric=True).prepare("cpu"), PackedEight)
    assert isinstance(quantised((64, 64), 8, None).prepare("cpu"), PackedFour)  # which takes zero points at no cost
    assert isinstance(quantised((64, 64), 8, 32, symmetric=True).prepare("cpu"), PackedFour)


def test_rows_past_the_end_are_refused():
    for source in (quantised((33, 64), 4, 32), quantised((33, 64), 8, None, symmetric=True)):
        with pytest.raises(IndexError):
            source.prepare("cpu").rows(torch.tensor([33]))


@pytest.mark.parametrize("tall", [16, 32, 48, 64, 80, 96, 176, 192])
def test_nibbles_come_back(tall):
    codes = torch.randint(0, 16, (tall, 96), generator=torch.Generator().manual_seed(tall), dtype=torch.uint8)
    packed = nibbles.pack_nibbles(codes)
    assert torch.equal(nibbles.unpack_nibbles(packed), codes)
    index = torch.arange(tall).flip(0)
    assert torch.equal(nibbles.nibble_rows(packed, index), codes[index])


def test_a_layout_that_is_not_known_is_refused(monkeypatch):
    shuffle = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    pack = nibbles.pack_nibbles
    monkeypatch.setattr(nibbles, "pack_nibbles", lambda codes: pack(codes[shuffle]))
    with pytest.raises(ValueError, match="not known"):
        nibbles.halves.__wrapped__(16)


@pytest.mark.parametrize("zero", ["middle", "bytes", "far bytes", "a number", "a broken number", "numbers"])
@pytest.mark.parametrize(("bits", "group"), [(2, 64), (3, None), (4, 32), (4, 96), (6, 128), (8, None), (8, 64)])
def test_restored_columns_are_the_numbers_rounded_once(bits, group, zero):
    source = quantised((70, 192), bits, group)
    zeros = {
        "middle": None, "bytes": source.zero, "far bytes": source.zero + 150, "a number": 3.0, "a broken number": 2.5,
        "numbers": source.zero.float() + 0.25,
    }  # fmt: skip
    source = dataclasses.replace(source, zero=zeros[zero], scale=source.scale.bfloat16())
    columns = source.prepare("cpu", "packed4").columns(torch.bfloat16)
    torch.testing.assert_close(columns, source.dequantize(torch.float64).mT.bfloat16(), rtol=2.0**-8, atol=1e-6)
    if zero not in ("a broken number", "numbers"):  # whose sums float32 rounds before
        assert torch.equal(columns, source.dequantize(torch.float64).mT.bfloat16())


def product_of_bytes(rows, unit, middle, packed):
    """What torch's product is where the processor has dot products of bytes."""
    codes = (rows / unit).round().clamp(-middle, 255 - middle) * unit
    return codes @ torch.ops.quantized.linear_unpack(packed)[0].dequantize().mT


@pytest.fixture
def bytewise(monkeypatch):
    if packed_digits.byte_operator() is None:
        monkeypatch.setattr(packed_digits, "byte_operator", lambda: product_of_bytes)


@pytest.mark.usefixtures("bytewise")
@pytest.mark.parametrize("grid", [GRIDS["integers"], GRIDS["symmetric"]], ids=["integers", "symmetric"])
@pytest.mark.parametrize("bits", range(5, 9))
def test_rows_in_two_digits_lose_no_more_than_bfloat16(bits, grid):
    for size in SIZES:
        source = quantised(size, bits, None, **grid)
        packed = source.prepare("cpu", "digits8")
        exact = source.dequantize(torch.float64)
        for count in (1, 3, 17):
            x = rows(count, size[1])
            x[:, 0] = 40.0  # a channel beside which the others are small
            expected = x.double() @ exact.mT
            few = packed.few(x)
            assert few.dtype == torch.bfloat16
            assert (few.double() - expected).norm() <= 2.0**-8 * expected.norm(), (size, count)
            assert torch.equal(packed.linear(x.double()), expected)
        index = torch.tensor([[0, size[0] - 1], [size[0] // 2, -1]])
        assert torch.equal(packed.rows(index), source.rows(index))
        assert torch.equal(packed.restore().codes, source.codes)


@pytest.mark.usefixtures("bytewise")
def test_rows_in_two_digits_of_zeros_and_of_no_numbers():
    packed = quantised((32, 64), 8, None).prepare("cpu", "digits8")
    assert torch.equal(packed.few(torch.zeros(1, 64, dtype=torch.bfloat16)), torch.zeros(1, 32, dtype=torch.bfloat16))
    for number in (torch.nan, torch.inf):
        assert not packed.few(torch.full((1, 64), number, dtype=torch.bfloat16)).isfinite().any()


@pytest.mark.usefixtures("bytewise")
def test_digits_are_not_packed_where_they_do_not_fit():
    assert quantised((32, 64), 8, 32).prepare("cpu", "digits8") is None
    assert quantised((32, 64), 4, None).prepare("cpu", "digits8") is None
    assert quantised((32, 64), 8, None, **GRIDS["exact minima"]).prepare("cpu", "digits8") is None
    source = quantised((32, 64), 6, None)
    assert source.prepare("cpu", "digits8") is not None
    assert dataclasses.replace(source, zero=source.zero + 180).prepare("cpu", "digits8") is None  # beyond a byte
