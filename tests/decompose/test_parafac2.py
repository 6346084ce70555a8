"""PARAFAC2 of slices of different lengths: recovery, uniqueness, constraints, refusals."""

import itertools

import pytest
import torch

from polyad.decompose import parafac2
from polyad.formats import CP

DOUBLE = torch.float64


def planted(lengths=(15, 18, 12, 20, 16, 14, 9, 11), columns=10, rank=3, seed=0, noise=0.0):
    """Slices, the factors A, B, C, and the rows' factors of each slice."""
    g = torch.Generator().manual_seed(seed)
    a = 0.5 + torch.rand(len(lengths), rank, generator=g, dtype=DOUBLE)
    b, c = (torch.randn(n, rank, generator=g, dtype=DOUBLE) for n in (rank, columns))
    parts = [torch.linalg.qr(torch.randn(n, rank, generator=g, dtype=DOUBLE)).Q @ b for n in lengths]
    slices = [part * a[k] @ c.mT for k, part in enumerate(parts)]
    slices = [
        x + noise * x.norm() / x.numel() ** 0.5 * torch.randn(x.shape, generator=g, dtype=DOUBLE) for x in slices
    ]
    return slices, (a, b, c), parts


def congruence(x, y):
    """The least congruence between the columns of two matrices, best matched."""
    return float(CP((x,)).align(CP((y,)))[1].min())


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("scale", [1, 1e15, 1e-15])
def test_planted_factors_are_found(dtype, scale):
    slices, (a, _, c), parts = planted()
    fit = parafac2([(x * scale).to(dtype) for x in slices], 3, starts=2)
    assert fit.error([x * scale for x in slices]) < 1e-6
    assert fit.weights.dtype == dtype
    assert congruence(fit.factors[0].double(), a) > 0.9999
    assert congruence(fit.factors[2].double(), c) > 0.9999
    for k, part in enumerate(parts):
        assert congruence(fit.slice_factor(k).double(), part) > 0.9999
        assert torch.allclose(fit.to_dense(k).double() / scale, slices[k], atol=1e-5)
        p = fit.projections[k]
        assert p.shape == (len(slices[k]), 3)
        assert torch.allclose(p.mT @ p, torch.eye(3, dtype=dtype), atol=1e-5)
    for factor in fit.factors:
        assert torch.allclose(factor.norm(dim=0), torch.ones(3, dtype=dtype), atol=1e-5)
    assert bool((fit.weights.diff() <= 0).all())


def test_noise_slices_longer_than_wide_and_a_tensor():
    slices, (a, _, c), _ = planted(noise=0.01)
    errors = []
    fit = parafac2(slices, 3, max_iter=150, starts=1, callback=lambda _i, _t, values: errors.append(values["error"]))
    assert 0.005 < fit.error(slices) < 0.01
    assert abs(errors[-1] - fit.error(slices)) < 1e-6
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(errors))
    assert congruence(fit.factors[2], c) > 0.98
    x = torch.stack(planted(lengths=(9, 9, 9, 9))[0])
    from_tensor, from_list = parafac2(x, 3), parafac2(list(x), 3)
    assert torch.equal(from_tensor.factors[0], from_list.factors[0])
    assert from_tensor.error(x) < 1e-3
    assert congruence(fit.factors[0], a) > 0.9


def test_a_slice_with_fewer_rows_than_the_rank_and_one_of_zeros():
    slices, _, _ = planted(rank=4, lengths=(10, 7, 12, 9))
    slices[1] = slices[1][:2]
    slices[3] = torch.zeros_like(slices[3])
    fit = parafac2(slices, 4, max_iter=200)
    short = fit.projections[1]
    assert short.shape == (2, 4)
    assert torch.allclose(short @ short.mT, torch.eye(2, dtype=DOUBLE))
    assert all(bool(torch.isfinite(part).all()) for part in (*fit.projections, *fit.factors))
    assert fit.error(slices) < 0.2
    assert parafac2([torch.zeros(3, 4), torch.zeros(5, 4)], 2).error([torch.zeros(3, 4), torch.zeros(5, 4)]) == 0


def test_more_ranks_leave_less_and_calls_repeat():
    slices = planted(noise=0.3)[0]
    errors = [parafac2(slices, rank, max_iter=200).error(slices) for rank in (1, 2, 3, 4, 10)]
    assert all(after < before for before, after in itertools.pairwise(errors))
    first, second = (parafac2(slices, 3, max_iter=20) for _ in range(2))
    assert torch.equal(first.factors[2], second.factors[2])


@pytest.mark.parametrize(
    ("slices", "arguments", "kind", "words"),
    [
        ([torch.ones(3, 4), torch.ones(3, 5)], {}, ValueError, r"slices\[1\] has 5 columns .* slices\[0\] 4"),
        ([torch.ones(3, 4), torch.ones(3, 4).double()], {}, ValueError, "one dtype"),
        ([torch.ones(3, 4), torch.ones(4)], {}, ValueError, r"slices\[1\] has shape \(4,\)"),
        ([torch.ones(3, 4), torch.full((3, 4), torch.nan)], {}, ValueError, r"slices\[1\] .* NaN"),
        ([torch.ones(3, 4) * 1j], {}, TypeError, "a real tensor is needed"),
        ([], {}, ValueError, "slices is empty"),
        (torch.ones(3, 4), {}, ValueError, "must be a tensor"),
        ("words", {}, TypeError, "slices is a str"),
        ([torch.ones(3, 4)], {"rank": 5}, ValueError, "rank=5 exceeds the 4 columns"),
        ([torch.ones(3, 4)], {"starts": 0}, ValueError, "starts=0"),
    ],
)
def test_refusals(slices, arguments, kind, words):
    with pytest.raises(kind, match=words):
        parafac2(slices, **{"rank": 2, **arguments})
