"""Higher-order singular value decompositions, rounding, batches of orthogonal iterations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.decompose import hooi, st_hosvd
from polyad.formats import LowRank, Tucker

DOUBLE = torch.float64


def seeded(*shape, dtype=DOUBLE, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def planted(shape, rank, *, batch=(), noise=0.0, dtype=DOUBLE, seed=0):
    factors = tuple(seeded(*batch, n, r, seed=seed + i) for i, (n, r) in enumerate(zip(shape, rank, strict=True)))
    x = Tucker(seeded(*batch, *rank, seed=seed + 9), factors).to_dense()
    e = seeded(*x.shape, seed=seed + 10)
    return (x + e * (noise * x.norm() / e.norm())).to(dtype)


def errors(format, x, batch=0):
    return (format.to_dense() - x).flatten(batch).norm(dim=-1) / x.flatten(batch).norm(dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("arguments", [{}, {"sequential": False}, {"order": (2, 0, 1)}, {"sketch": True}])
def test_planted_ranks_are_found(dtype, arguments):
    x = planted((9, 8, 7), (2, 3, 4), dtype=dtype)
    for found in (st_hosvd(x, (2, 3, 4), **arguments), st_hosvd(x, tol=1e-2, **arguments)):
        assert errors(found, x) < 200 * torch.finfo(dtype).eps
        assert found.rank == (2, 3, 4)
        assert found.dtype == dtype
        for factor in found.factors:
            assert torch.allclose(factor.mT @ factor, torch.eye(factor.shape[1], dtype=dtype), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    tol=st.floats(1e-7, 0.9),
    seed=st.integers(0, 99),
    decay=st.floats(0.05, 1.0),
)
def test_the_tolerance_is_never_exceeded(shape, tol, seed, decay):
    x = seeded(*shape, seed=seed)
    for mode, n in enumerate(shape):
        x = x * (decay ** torch.arange(n, dtype=DOUBLE)).reshape(-1, *[1] * (len(shape) - 1 - mode))
    for found in (
        st_hosvd(x, tol=tol),
        st_hosvd(x, tol=tol, sequential=False),
        st_hosvd(x, tol=tol, sketch=True),
        Tucker(x, tuple(seeded(n + 1, n, seed=n) for n in shape)).round(tol=tol),
    ):
        whole = x if found.shape == x.shape else Tucker(x, tuple(seeded(n + 1, n, seed=n) for n in shape)).to_dense()
        assert errors(found, whole) <= tol * (1 + 1e-9)


def test_a_sketch_is_nearly_as_good_and_refuses_what_it_cannot_do():
    x = planted((40, 41, 42), (3, 4, 5), noise=0.05)
    exact, quick = (errors(st_hosvd(x, (3, 4, 5), sketch=sketch), x) for sketch in (False, True))
    assert quick < 1.03 * exact
    flat = seeded(30, 30, 30)  # whose mixture promises nothing: the result is the exact way's or about as good
    assert errors(st_hosvd(flat, (3, 3, 3), sketch=True), flat) < 1.05 * errors(st_hosvd(flat, (3, 3, 3)), flat)
    assert torch.equal(st_hosvd(x, (3, 4, 5), sketch=True).core, st_hosvd(x, (3, 4, 5), sketch=True).core)


def test_large_tensors_are_sketched_to_the_floor_of_noise():
    x = planted((110, 104, 96), (4, 5, 6), noise=1e-2, dtype=torch.float32)
    found = st_hosvd(x, tol=1.1e-2)
    assert found.rank == (4, 5, 6)
    assert errors(found, x) < 1.05e-2
    assert errors(st_hosvd(x, (4, 5, 6)), x) < 1.02e-2


def test_errors_of_the_modes_bound_that_of_the_best():
    x = seeded(6, 7, 8)
    best = errors(hooi(x, (2, 3, 4), max_iter=200, stop=0), x)
    for found in (st_hosvd(x, (2, 3, 4)), st_hosvd(x, (2, 3, 4), sequential=False)):
        assert best <= errors(found, x) <= math.sqrt(3) * best


@pytest.mark.parametrize("decompose", [st_hosvd, hooi])
@pytest.mark.parametrize("settings", [{"rank": (2, 2, 3)}, {"tol": 0.3}])
def test_batches_are_decomposed_one_by_one(decompose, settings):
    x = torch.stack([seeded(5, 6, 4), planted((5, 6, 4), (1, 1, 1), seed=3), torch.zeros(5, 6, 4, dtype=DOUBLE)])
    found = decompose(x, **settings, batch=1)
    assert found.shape == (3, 5, 6, 4)
    alone = [decompose(one, **settings) for one in x]
    if "rank" in settings:
        for i in (0, 1):
            assert torch.allclose(found.to_dense()[i], alone[i].to_dense(), atol=1e-3)
    else:
        assert found.rank == tuple(max(ranks) for ranks in zip(*(one.rank for one in alone), strict=True))
        assert (errors(found, x, 1)[:2] <= 0.3).all()
    assert not found.to_dense()[2].any()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_scale_will_do(scale, dtype):
    x = planted((6, 7, 5), (2, 3, 2), noise=0.1, dtype=dtype)
    for decompose in (st_hosvd, hooi):
        one, other = decompose(x, (2, 3, 2)), decompose(x * scale, (2, 3, 2))
        assert torch.allclose(other.to_dense() / scale, one.to_dense(), atol=1e-3)
        assert decompose(x * scale, tol=0.2).rank == decompose(x, tol=0.2).rank
    big = Tucker(one.core * scale, one.factors).round(tol=0.2)
    assert torch.allclose(big.to_dense() / scale, one.round(tol=0.2).to_dense(), atol=1e-3)


def test_gradients_are_those_of_differences():
    x = seeded(3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: st_hosvd(x, (2, 2, 2)).to_dense(), x)
    cube = torch.zeros(3, 3, 3, dtype=DOUBLE).requires_grad_()
    for decompose in (lambda: st_hosvd(cube, (2, 2, 2)), lambda: st_hosvd(cube + torch.eye(3), (2, 2, 2))):
        (gradient,) = torch.autograd.grad(decompose().to_dense().square().sum(), cube)
        assert torch.isfinite(gradient).all()


def test_unusual_shapes():
    assert st_hosvd(seeded(1, 1, 1), tol=0.1).rank == (1, 1, 1)
    assert st_hosvd(seeded(4, 1, 3).mT, (1, 3, 1)).shape == (4, 3, 1)
    assert errors(st_hosvd(seeded(2, 9, 2), (2, 9, 2)), seeded(2, 9, 2)) < 1e-12
    assert errors(st_hosvd(seeded(2, 9, 2), tol=0), seeded(2, 9, 2)) < 1e-12
    assert st_hosvd(seeded(5, 6, 4).bfloat16(), (2, 2, 2)).dtype == torch.bfloat16
    assert st_hosvd(seeded(5, 4), (2, 2)).shape == (5, 4)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_rounding_is_the_best_cut_and_idempotent(dtype):
    a = LowRank(seeded(2, 9, 3, dtype=dtype), seeded(2, 3, 7, seed=1, dtype=dtype))
    same = (a + a).round(tol=1e-4)
    assert same.rank == 3
    assert torch.allclose(same.to_dense(), 2 * a.to_dense(), atol=1e-4)
    cut = a.round(2)
    tail = torch.linalg.svdvals(a.to_dense())[..., 2]
    assert torch.allclose((cut.to_dense() - a.to_dense()).flatten(1).norm(dim=1), tail, rtol=1e-3)
    assert torch.allclose(cut.round(2).to_dense(), cut.to_dense(), atol=1e-4)
    assert a.round(6).rank == 3
    wild = LowRank(a.left * 1e-30, a.right * 1e30).round(2)
    assert torch.allclose(wild.to_dense(), cut.to_dense(), atol=1e-3)


def test_tucker_rounding_undoes_sums():
    x = Tucker.random((6, 7, 8), generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    twice = (x + x).round(tol=1e-6)
    assert twice.rank == x.rank
    assert torch.allclose(twice.to_dense(), 2 * x.to_dense())
    cut = x.round((2, 2, 3))
    assert cut.rank == (2, 2, 3)
    assert torch.allclose(cut.to_dense(), st_hosvd(x.to_dense(), (2, 2, 3)).to_dense(), atol=1e-6)
    assert torch.allclose(cut.round((2, 2, 3)).to_dense(), cut.to_dense())
    assert (x + x).round((6, 7, 8)).rank == (6, 6, 8)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: st_hosvd(seeded(5, 6, 4), (2, 9, 4)), r"rank\[1\]=9 exceeds mode 1"),
        (lambda: st_hosvd(seeded(5, 6, 4), (2, 2)), "one number for each of the 3 modes"),
        (lambda: st_hosvd(seeded(5, 6, 4)), "exactly one of rank, tol"),
        (lambda: st_hosvd(seeded(5, 6, 4), tol=1.5), "tol=1.5"),
        (lambda: st_hosvd(seeded(5, 6, 4), tol=0.1, order=(0, 1, 1)), "must name each of the modes"),
        (lambda: st_hosvd(seeded(5, 6, 4) / 0, tol=0.1), "infinite"),
        (lambda: st_hosvd(seeded(5, 6), tol=0.1, batch=1), "at least 3"),
        (lambda: Tucker.random((3, 4), generator=torch.Generator()).round((1, 9)), r"rank\[1\]=9 exceeds"),
        (lambda: LowRank(seeded(3, 2), seeded(2, 3)).round(0), "rank=0 is below 1"),
        (lambda: LowRank(seeded(3, 2), seeded(2, 3)).round(), "exactly one of rank, tol"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
