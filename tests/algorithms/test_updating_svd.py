"""Updates of a truncated SVD: equal to the dense Rayleigh-Ritz update, exact at full rank, orthonormal."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.algorithms import UpdatingSVD


def sparse(n, m, density=0.1, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, m, generator=g, dtype=dtype)
    return x * (torch.rand(n, m, generator=g) < density)


def best(x, rank):
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def product(svd):
    return (svd.u * svd.s) @ svd.v.T


def orthonormal(svd, atol=1e-9):
    eye = torch.eye(svd.rank, dtype=svd.s.dtype)
    assert torch.allclose(svd.u.T @ svd.u, eye, atol=atol)
    assert torch.allclose(svd.v.T @ svd.v, eye, atol=atol)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.sampled_from(["rows", "columns", "add"]), min_size=1, max_size=4))
def test_every_update_is_the_best_approximation_of_the_old_one_changed(seed, steps):
    x = sparse(30, 24, 0.3, seed)
    svd = UpdatingSVD(x, 5)
    for i, step in enumerate(steps):
        old = product(svd)
        n, m = old.shape
        if step == "rows":
            e = sparse(3, m, 0.3, seed + i + 1)
            svd.append_rows(e.to_sparse())
            changed = torch.cat((old, e))
        elif step == "columns":
            e = sparse(n, 2, 0.3, seed + i + 1)
            svd.append_columns(e.to_sparse())
            changed = torch.cat((old, e), 1)
        else:
            d, e = sparse(n, 2, 0.2, seed + i + 1), sparse(m, 2, 0.2, seed + i + 2)
            svd.add(d.to_sparse(), e)
            changed = old + d @ e.T
        assert svd.shape == tuple(changed.shape)
        expected = torch.linalg.svdvals(changed)[:5]
        assert torch.allclose(svd.s, expected, atol=1e-8)
        assert torch.allclose(product(svd), best(changed, 5), atol=1e-6)
        orthonormal(svd, 1e-8)


def test_a_matrix_within_the_rank_is_followed_exactly_over_many_updates():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 4, generator=g, dtype=torch.float64) @ torch.randn(4, 200, generator=g, dtype=torch.float64)
    svd = UpdatingSVD(x[:, :10], 4)
    for part in x[:, 10:].split(5, 1):
        svd.append_columns(part)
    assert torch.allclose(product(svd), x, atol=1e-8)
    orthonormal(svd)


def test_many_sparse_updates_stay_near_the_recomputed_svd():
    left, right = sparse(300, 6, 0.3), sparse(200, 6, 0.3, 1)
    x = left @ right.T + 0.05 * sparse(300, 200, 0.05, 2)
    svd = UpdatingSVD(x[:100], 8)
    for part in x[100:].split(10):
        svd.append_rows(part.to_sparse())
    optimum = (x - best(x, 8)).norm()
    assert (x - product(svd)).norm() <= 1.02 * optimum
    orthonormal(svd)


def test_rows_that_an_update_does_not_touch_are_not_computed():
    svd = UpdatingSVD(sparse(40, 30, 0.4), 4)
    before = svd._right.base.clone()
    e = torch.zeros(2, 30, dtype=torch.float64)
    e[0, 3], e[1, 7] = 1.0, 2.0
    svd.append_rows(e.to_sparse())
    changed = (svd._right.base != before).any(1).nonzero().flatten().tolist()
    assert changed == [3, 7]


def test_a_direction_that_replaces_an_old_one_folds_the_factors():
    start = torch.zeros(4, 6, dtype=torch.float64)
    start[0, 0], start[1, 1] = 2.0, 1.0
    svd = UpdatingSVD(start, 2)
    d = torch.zeros(4, 2, dtype=torch.float64)
    d[0, 0], d[2, 0], d[3, 1] = 1e-4, 1e4, 0.1  # the new top direction holds 1e-8 of the old one
    e = torch.zeros(6, 2, dtype=torch.float64)
    e[4, 0] = e[5, 1] = 1.0
    changed = product(svd) + d @ e.T
    svd.add(d, e)
    assert torch.allclose(product(svd), best(changed, 2), atol=1e-3)
    assert torch.linalg.cond(svd._left.small) < 1e6
    assert torch.linalg.cond(svd._right.small) < 1e6
    orthonormal(svd)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_and_removal_of_what_was_there(scale):
    x = sparse(12, 10, 0.5) * scale
    svd = UpdatingSVD(x, 10)
    svd.add(-x, torch.eye(10, dtype=torch.float64))
    assert product(svd).norm() <= 1e-9 * x.norm()
    assert torch.isfinite(svd.u).all()


def test_float32_sparse_start_and_zero_updates():
    x = sparse(20, 15, 0.5, dtype=torch.float32)
    svd = UpdatingSVD(x.to_sparse(), 3)
    s = svd.s
    svd.append_rows(torch.zeros(2, 15))
    assert svd.u.dtype == torch.float32
    assert torch.allclose(svd.s, s)
    assert torch.allclose(svd.u[20:], torch.zeros(2, 3), atol=1e-6)
    orthonormal(svd, 1e-5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda svd: svd.append_rows(torch.ones(2, 3).double()), r"must have shape \('s', 6\)"),
        (lambda svd: svd.append_columns(torch.ones(2, 3).double()), r"must have shape \(8, 's'\)"),
        (lambda svd: svd.append_rows(torch.ones(0, 6).double()), "is empty"),
        (lambda svd: svd.add(torch.ones(8, 2).double(), torch.ones(6, 3).double()), "2 columns and e 3"),
        (lambda svd: svd.append_rows(torch.full((1, 6), torch.nan)), "NaN"),
        (lambda svd: UpdatingSVD(torch.ones(8, 6), 7), "rank=7 exceeds"),
        (lambda svd: UpdatingSVD(torch.ones(2, 8, 6), 2), "must be a matrix"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(UpdatingSVD(sparse(8, 6), 3))
