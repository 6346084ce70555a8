"""4-bit matrices for tensor cores: shapes by torch's own definitions, numbers by stand-ins for its operators."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from polyad.formats.stored import packed_cores
from polyad.formats.stored.packed_cores import pack_cores
from polyad.layers.kernels import pack
from polyad.quantize import round_to_nearest

SIZES = ((64, 128), (33, 70), (8, 32), (130, 320))


def quantised(size, bits=4, group=32, **grid):
    torch.manual_seed(0)
    return round_to_nearest(torch.randn(size), bits=bits, group=group, **grid)


def convert(pairs, tiles):
    """Codes by the definition of the operator, in any layout of its shape."""
    n, k = pairs.shape[0], 2 * pairs.shape[1]
    codes = torch.stack([pairs >> 4, pairs & 15], -1).reshape(n, k).long()
    words = (codes.reshape(-1, 8) << torch.arange(0, 32, 4, device=pairs.device)).sum(-1).to(torch.int32)
    return words.view(n // 8, k // (16 * tiles), 32, tiles // 2)


def multiply(x, words, group, grid):
    """The product by its definition."""
    n = words.shape[0] * 8
    codes = (words.reshape(-1, 1) >> torch.arange(0, 32, 4)) & 15
    scale, shift = grid.float().repeat_interleave(group, 0).unbind(-1)  # (columns, n)
    return (x.float() @ ((codes.reshape(n, -1).mT - 8) * scale + shift)).bfloat16()


@pytest.fixture
def stand_ins(monkeypatch):
    monkeypatch.setattr(packed_cores, "cores_operators", lambda: (multiply, convert))


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 128), (3, 64), (2, None)])
def test_products_and_codes(bits, group):
    for size in SIZES:
        source = quantised(size, bits, group)
        packed = pack_cores(source)
        x = torch.randn(3, size[1], generator=torch.Generator().manual_seed(1)).bfloat16()
        expected = x.float() @ source.dequantize(torch.float32).mT
        assert (packed.few(x)[:, : size[0]].float() - expected).norm() <= pack.ERROR * expected.norm(), size
        torch.testing.assert_close(packed.many(x.float()), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(packed.restore().codes, source.codes)
        assert torch.equal(packed.rows(torch.tensor([[1, -1]])), source.rows(torch.tensor([[1, -1]])))


@pytest.mark.usefixtures("stand_ins")
def test_none_where_it_does_not_fit(monkeypatch):
    assert pack_cores(quantised((64, 64), 8)) is None
    assert pack_cores(quantised((64, 64), 4, 16)) is None
    monkeypatch.setattr(packed_cores, "cores_operators", lambda: None)
    assert pack_cores(quantised((64, 64))) is None


@pytest.mark.parametrize("tiles", packed_cores.TILES)
def test_shapes_are_those_of_torchs_operators(tiles):
    product, convert_ = packed_cores.cores_operators.__wrapped__()
    with FakeTensorMode():
        pairs = torch.empty(24, 64 * tiles, dtype=torch.uint8, device="cuda")
        words = convert_(pairs, tiles)
        assert words.shape == convert(torch.empty(24, 64 * tiles, dtype=torch.uint8, device="cuda"), tiles).shape
        grid = torch.empty(4 * tiles, 24, 2, dtype=torch.bfloat16, device="cuda")
        y = product(torch.empty(5, 128 * tiles, dtype=torch.bfloat16, device="cuda"), words, 32, grid)
        assert (y.shape, y.dtype) == ((5, 24), torch.bfloat16)


def test_a_processor_never_takes_it():
    source = quantised((64, 64))
    assert source.prepare("cpu", "cores4") is None
    assert source.prepare("cuda", "cores4") is None  # the codes are not there
    assert pack.pack_codes(source, "cores4") is None
    assert not pack.serves("auto", torch.device("cuda"))
    assert pack.serves("cores4", torch.device("cuda"))
