"""Packing of integers, and quantised tensors of every shape of block."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.formats import Quantized
from polyad.formats.stored.packing import pack, packed_length, planes, unpack
from polyad.testing import formats

quiet = settings(deadline=None, max_examples=60, derandomize=True)


def codes(bits, shape, seed):
    return torch.randint(0, 2**bits, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@quiet
@given(
    bits=st.integers(1, 8), lead=st.lists(st.integers(0, 3), max_size=2), n=st.integers(0, 40), seed=st.integers(0, 9)
)
def test_unpack_inverts_pack(bits, lead, n, seed):
    given_codes = codes(bits, (*lead, n), seed)
    packed = pack(given_codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (*lead, packed_length(n, bits))
    assert torch.equal(unpack(packed, bits, n), given_codes)


@quiet
@given(bits=st.integers(1, 8), n=st.integers(0, 200))
def test_the_length_is_that_of_the_planes(bits, n):
    assert sum(planes(bits)) == bits
    assert n * bits / 8 <= packed_length(n, bits) < n * bits / 8 + len(planes(bits))
    assert packed_length(8 * n, bits) == n * bits


@pytest.mark.parametrize("bits", range(1, 9))
def test_strided_codes_pack_like_contiguous_ones(bits):
    given_codes = codes(bits, (5, 7), 0)
    assert torch.equal(pack(given_codes.mT, bits), pack(given_codes.mT.contiguous(), bits))


def test_bad_codes_are_refused():
    with pytest.raises(TypeError, match="codes have dtype"):
        pack(torch.ones(4, dtype=torch.int64), 4)
    with pytest.raises(ValueError, match="bits=9 cannot be packed"):
        pack(codes(8, (4,), 0), 9)


@st.composite
def quantised(draw):
    size = (draw(st.integers(1, 7)), draw(st.integers(1, 11)))
    block = tuple(draw(st.integers(1, n + 2)) for n in size)
    bits, seed = draw(st.integers(1, 8)), draw(st.integers(0, 9))
    grid = tuple(-(-n // b) for n, b in zip(size, block, strict=True))
    scale = 0.5 + torch.rand(grid, generator=torch.Generator().manual_seed(seed))
    zero = draw(st.sampled_from([None, codes(bits, grid, seed), codes(bits, grid, seed) + 0.25]))
    whole = codes(bits, size, seed)
    return Quantized(pack(whole, bits), scale, zero, bits, size, block), whole


@quiet
@given(quantised())
def test_every_number_is_its_code_less_its_zero_times_its_scale(drawn):
    format, whole = drawn
    dense = format.to_dense()
    for i in range(format.size[0]):
        for j in range(format.size[1]):
            place = (i // format.block[0], j // format.block[1])
            centre = 2 ** (format.bits - 1) if format.bits > 1 else 0.5
            zero = centre if format.zero is None else float(format.zero[place])
            expected = (float(whole[i, j]) - zero) * float(format.scale[place])
            assert float(dense[i, j]) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@quiet
@given(quantised())
def test_ragged_blocks_keep_the_contract(drawn):
    for check in (formats.linear, formats.rows, formats.transpose, formats.spec, formats.size, formats.cast):
        check(drawn[0])
