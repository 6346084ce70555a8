"""CP of sparse tensors."""

import itertools

import pytest
import torch

from polyad.decompose import sparse_cp_als
from polyad.decompose.alternating.sparse_entries import Entries


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(shape, rank, dtype=torch.float64, seed=0, share=0.5):
    """A dense tensor of this rank that is mostly zeros."""
    draw = seeded(seed)
    letters = "abcdefgh"[: len(shape)]
    factors = [
        torch.randn(n, rank, generator=draw, dtype=dtype) * (torch.rand(n, rank, generator=draw) < share)
        for n in shape
    ]
    return torch.einsum(",".join(c + "z" for c in letters) + "->" + letters, *factors)


def error(format, x):
    return float((format.to_dense().double() - x.double()).norm() / x.double().norm())


@pytest.mark.parametrize("shape", [(7, 9), (6, 5, 8), (5, 1, 4, 6), (3, 4, 2, 3, 4)])
def test_products_over_several_blocks_are_those_of_the_dense_tensor(shape):
    x = planted(shape, 2, share=0.9)
    index, values = x.to_sparse().indices(), x.to_sparse().values()
    entries = Entries(index, values, shape, 3)
    if len(shape) > 2:
        entries.size = 7
        entries.modes = [entries._blocks(index, values, m) for m in range(len(shape))]
        assert len(entries.modes[0]) > 2
    factors = [torch.randn(n, 3, generator=seeded(n), dtype=x.dtype) for n in shape]
    letters = "abcdefgh"[: len(shape)]
    for mode in range(len(shape)):
        others = [c + "z" for m, c in enumerate(letters) if m != mode]
        dense = torch.einsum(
            f"{letters},{','.join(others)}->{letters[mode]}z", x, *[f for m, f in enumerate(factors) if m != mode]
        )
        assert torch.allclose(entries.mttkrp(factors, mode), dense)


@pytest.mark.parametrize(("shape", "rank"), [((12, 10), 3), ((12, 10, 11), 3), ((6, 7, 5, 6), 2)])
def test_planted_structure_is_found(shape, rank):
    x = planted(shape, rank, seed=3)
    found = sparse_cp_als(x.to_sparse(), rank, max_iter=400, stop=1e-18)
    assert error(found, x) < 1e-6
    assert found.dtype == torch.float64
    norms = torch.stack([f.norm(dim=0) for f in found.factors])
    assert torch.allclose(norms, norms[:1].expand_as(norms))


def test_scale_order_of_modes_and_duplicates_carry_over():
    x = planted((9, 8, 7), 2).float()
    one = sparse_cp_als(x.to_sparse(), 2, max_iter=300, stop=0)
    for scale in (1e-30, 1e30):
        scaled = sparse_cp_als((x * scale).to_sparse(), 2, max_iter=300, stop=0)
        assert error(scaled, x * scale) < 1e-3
    turned = sparse_cp_als(x.permute(2, 0, 1).to_sparse(), 2, max_iter=300, stop=0)
    assert torch.allclose(turned.to_dense().permute(1, 2, 0), one.to_dense(), atol=1e-3)
    halves = x.to_sparse()
    twice = torch.sparse_coo_tensor(
        torch.cat((halves.indices(), halves.indices()), 1),
        torch.cat((halves.values(), halves.values())) / 2,
        x.shape,
        check_invariants=True,
    )
    assert torch.equal(sparse_cp_als(twice, 2).to_dense(), sparse_cp_als(x.to_sparse(), 2).to_dense())


def test_errors_reported_only_fall_and_are_those_returned():
    x = planted((10, 9, 8), 6)
    seen = []
    found = sparse_cp_als(x.to_sparse(), 3, stop=0, max_iter=60, callback=lambda i, n, v: seen.append(v["error"]))
    assert 20 < len(seen) <= 60  # rounding ends it at last
    assert all(b <= a for a, b in itertools.pairwise(seen))
    assert seen[-1] == pytest.approx(error(found, x), rel=1e-6)
    same = sparse_cp_als(x.to_sparse(), 3, stop=0, max_iter=60, generator=seeded())
    assert torch.equal(same.to_dense(), found.to_dense())


def test_extremes():
    assert not sparse_cp_als(torch.zeros(3, 4, 5).to_sparse(), 2).to_dense().any()
    one = torch.zeros(4, 1, 5)
    one[2, 0, 3] = -2
    assert error(sparse_cp_als(one.to_sparse(), 4), one) < 1e-5  # rank above what is there
    half = sparse_cp_als(planted((6, 5, 4), 2).half().requires_grad_().to_sparse(), 2)
    assert half.dtype == torch.float16
    assert not half.factors[0].requires_grad


@pytest.mark.parametrize(
    ("x", "rank", "kind", "sentence"),
    [
        (torch.ones(3, 4, 5).to_sparse(), 13, ValueError, "rank=13 exceeds what any tensor of shape"),
        (torch.ones(3, 4, 5).to_sparse(), 0, ValueError, "rank=0 is below 1"),
        (torch.ones(3).to_sparse(), 1, ValueError, "1 dimensions"),
        (torch.ones(3, 4).to_sparse(1), 1, ValueError, "1 dense dimensions"),
        ((torch.ones(3, 4) * float("nan")).to_sparse(), 1, ValueError, "12 NaN"),
        (torch.ones(3, 4, dtype=torch.int64).to_sparse(), 1, TypeError, "dtype torch.int64"),
        (torch.ones(3, 0).to_sparse(), 1, ValueError, "empty"),
    ],
)
def test_refusals(x, rank, kind, sentence):
    with pytest.raises(kind, match=sentence):
        sparse_cp_als(x, rank)
