"""Tensor trains: rounding, orthogonality, and decomposition."""

import itertools

import pytest
import torch

from polyad._card import card
from polyad.decompose import tt_matrix, tt_svd
from polyad.formats import TensorTrain, TrainMatrix
from polyad.testing import decompositions

F32, F64 = torch.float32, torch.float64


def seeded(*shape, dtype=F64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def train(shape, rank, *, dtype=F64, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    ends = len(shape) - 1
    sizes = [(*batch, *((rank,) if i else ()), n, *((rank,) if i < ends else ())) for i, n in enumerate(shape)]
    cores = [torch.randn(size, generator=generator, dtype=F64) / rank**0.5 for size in sizes]
    return TensorTrain(tuple(core.to(dtype) for core in cores))


def inflated(x, rank, dtype):
    """The same tensor with larger bonds: a random matrix and its pseudo-inverse between neighbours."""
    cores = list(x.cores)
    for i, r in enumerate(x.rank):
        wide = seeded(r, rank, seed=i)
        cores[i], cores[i + 1] = cores[i] @ wide, torch.tensordot(torch.linalg.pinv(wide), cores[i + 1], 1)
    return TensorTrain(tuple(core.to(dtype) for core in cores))


def error(found, x):
    exact = x.to_dense() if isinstance(x, TensorTrain) else x
    return float((found.to_dense().double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("check", decompositions.CHECKS, ids=lambda check: check.__name__)
def test_tt_svd_keeps_the_contract(check):
    check(card("tt_svd"))


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("tol", [1e-3, 1e-5, 3e-7])
def test_rounding_finds_the_true_rank(dtype, tol):
    x = train((8, 20, 20, 20, 8), 16)
    big = inflated(x, 64, dtype)
    small = big.round(tol=tol)
    assert big.rank == (64,) * 4
    assert small.rank == (8, 16, 16, 8)
    assert small.dtype == dtype
    assert float((small.to(F64) - x).norm() / x.norm()) < 50 * torch.finfo(dtype).eps
    assert small.round(tol=tol).rank == small.rank


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-2, 1e-3, 1e-5])
def test_rounding_and_decomposition_stay_within_the_tolerance(dtype, tol):
    decay = torch.logspace(0, -5, 7, dtype=F64)
    x = (seeded(7, 7, 7, 7) * decay[:, None, None, None] * decay[:, None] * decay).to(dtype)
    found = tt_svd(x, tol=tol)
    assert error(found, x) <= tol
    exact = tt_svd(x, tol=0)
    assert error(exact, x) < 20 * torch.finfo(dtype).eps
    rounded = exact.round(tol=tol)
    assert error(rounded, x) <= tol
    assert rounded.parameters <= exact.parameters
    if tol < 0.5:
        assert max(rounded.rank) <= max(found.rank) + 1


def test_rounding_to_a_rank_is_near_the_best():
    x = seeded(5, 6, 7)
    tails = [torch.linalg.svdvals(x.reshape(n, -1))[3:].norm() for n in (5, 30)]
    for found in (tt_svd(x, 3), tt_svd(x, (5, 7)).round(3), tt_svd(x, (5, 7)).round((3, 3))):
        assert found.rank == (3, 3)
        assert float(max(tails)) - 1e-9 <= float((found.to_dense() - x).norm()) <= float(torch.stack(tails).norm())
    assert tt_svd(x, 100).rank == (5, 7)


def test_batches_are_rounded_and_decomposed_at_once():
    x = train((4, 5, 6), 2, batch=(2, 3))
    big = x + x
    small = big.round(tol=1e-9)
    assert small.rank == x.rank
    assert small.shape == (2, 3, 4, 5, 6)
    assert error(small, big) < 1e-13
    assert error(tt_svd(big.to_dense(), tol=1e-9, batch=2), big) < 1e-13
    assert tt_svd(big.to_dense(), 2, batch=2).cores[1].shape == (2, 3, 2, 5, 2)
    assert torch.allclose(x.norm(), x.to_dense().flatten(2).norm(dim=-1))
    assert error(x.orthogonalised(1), x) < 1e-14


def test_norms_of_long_trains_do_not_overflow():
    x = train((10,) * 60, 5, dtype=F32)
    big = TensorTrain(tuple(core * 1e4 for core in x.cores))
    small = TensorTrain(tuple(core * (1e-6 if i % 2 else 1e5) for i, core in enumerate(x.cores)))
    expected = x.to(F64).norm() * 1e-30
    assert torch.isinf(big.norm())
    assert torch.allclose(small.norm().double(), expected, rtol=1e-4)
    for changed in (big.round(tol=1e-3), big.orthogonalised(7)):
        assert changed.rank == x.rank
        assert all(torch.isfinite(core).all() for core in changed.cores)
        assert float((changed.to(F64) - big.to(F64)).norm() / big.to(F64).norm()) < 1e-4


@pytest.mark.parametrize("centre", [0, 2, -1])
def test_orthogonalised_cores_are_orthonormal(centre):
    x = train((4, 5, 3, 6), 4)
    found = x.orthogonalised(centre)
    assert error(found, x) < 1e-14
    cores = found.three_way()
    for i, core in enumerate(cores):
        if i == centre % 4:
            assert torch.allclose(core.norm(), x.norm())
            continue
        m = core.flatten(0, 1) if i < centre % 4 else core.flatten(1).mT
        assert torch.allclose(m.mT @ m, torch.eye(m.shape[1], dtype=F64), atol=1e-12)


def test_gradients_flow_through_the_norm():
    x = train((3, 4, 3), 2)
    cores = [core.clone().requires_grad_() for core in x.cores]

    def norm(*cores):
        return (TensorTrain(cores) + TensorTrain(cores)).norm()

    assert torch.autograd.gradcheck(norm, cores)


def test_gradients_flow_through_rounding_and_decomposition():
    x = seeded(3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tt_svd(x, 2).to_dense(), x)
    assert torch.autograd.gradcheck(lambda x: tt_svd(x, tol=0.4).to_dense(), x)
    cores = [core.clone().requires_grad_() for core in train((3, 4, 3), 3).cores]
    assert torch.autograd.gradcheck(lambda *cores: TensorTrain(cores).round(2).to_dense(), cores)
    twice = train((3, 4, 3), 2)
    cores = [core.clone().requires_grad_() for core in (twice + twice).cores]
    assert TensorTrain(tuple(cores)).round(2).rank == (2, 2)
    TensorTrain(tuple(cores)).round(2).to_dense().square().sum().backward()
    assert all(bool(torch.isfinite(core.grad).all()) for core in cores)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("noise", [0.0, 2e-5, 7e-5, 3e-4])
def test_large_tensors_are_sketched_and_stay_within_the_tolerance(dtype, noise):
    x = train((8,) * 6, 6)
    dense = x.to_dense()
    e = seeded(*dense.shape, seed=3)
    dense = (dense + e * (noise * dense.norm() / e.norm())).to(dtype)
    found = tt_svd(dense, tol=1e-4)
    assert error(found, dense) <= 1e-4
    assert noise > 5e-5 or found.rank == x.rank
    assert all(torch.equal(a, b) for a, b in zip(found.cores, tt_svd(dense, tol=1e-4).cores, strict=True))


def test_a_sketch_that_misses_is_noticed():
    spiky = torch.zeros((8,) * 6, dtype=F64)
    spiky[0, 1, 2, 3, 4, 5] = 1
    assert tt_svd(spiky, tol=1e-4).rank == (1,) * 5
    hidden = train((8,) * 6, 2).to_dense()
    hidden[5, 1, 2, 3, 4, 5] += 0.01 * hidden.norm()
    found = tt_svd(hidden, tol=1e-4)
    assert error(found, hidden) <= 1e-4
    assert max(found.rank) == 3


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_modes_of_any_order_and_length_one(order):
    x = train((4, 1, 6), 2).to_dense().permute(order)
    for found in (tt_svd(x, tol=1e-10), tt_svd(x, 2), tt_svd(x, tol=1e-10).round(tol=1e-10)):
        assert error(found, x) < 1e-13
    assert tt_svd(x.flatten(), tol=0.1).shape == (24,)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tt_svd(seeded(3, 4, 5)), "exactly one of rank, tol"),
        (lambda: tt_svd(seeded(3, 4, 5), (2, 0)), r"rank\[1\]=0 must be at least 1"),
        (lambda: tt_svd(seeded(3, 4, 5), (2, 2, 2)), "each of the 2 bonds of x"),
        (lambda: tt_svd(seeded(3, 4, 5), tol=2.0), "not a relative error"),
        (lambda: tt_svd(seeded(3, 4, 5) * float("nan"), 2), "60 NaN"),
        (lambda: train((3, 4), 2).round(), "exactly one of rank, tol"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_kronecker_product_has_bonds_of_one_and_matrices_round(dtype):
    a, b, c = (seeded(n, m, dtype=dtype, seed=n) for n, m in ((4, 2), (3, 5), (2, 3)))
    w = torch.kron(a, torch.kron(b, c))
    found = tt_matrix(w, tol=1e-5, modes=((4, 3, 2), (2, 5, 3)))
    assert found.rank == (1, 1)
    assert error(found, w) < 20 * torch.finfo(dtype).eps
    rounded = (found + found).round(tol=1e-5)
    assert rounded.rank == (1, 1)
    assert error(rounded, 2 * w) < 20 * torch.finfo(dtype).eps
    assert torch.allclose(found.norm(), w.norm())


def test_a_matrix_train_applies_in_any_order_and_in_batches():
    w = seeded(2, 24, 30)
    found = tt_matrix(w, tol=0, batch=1)
    assert isinstance(found, TrainMatrix)
    assert found.modes == ((4, 3, 2), (5, 3, 2))
    assert error(found, w) < 1e-13
    x = seeded(2, 7, 30, seed=1)
    assert torch.allclose(found.linear(x), x @ w.mT)
    assert torch.allclose(found.transpose().linear(x[..., :24]), x[..., :24] @ w)
    long = TrainMatrix(tuple(seeded(*((2,) if i else ()), 2, 2, *((2,) if i < 6 else ()), seed=i) for i in range(7)))
    assert torch.allclose(
        long.rows(torch.tensor([[3, 127], [-1, 0]])), long.to_dense()[torch.tensor([[3, 127], [-1, 0]])]
    )
    assert error(tt_matrix(w[0], 2), w[0]) < 1


@pytest.mark.parametrize("check", decompositions.CHECKS, ids=lambda check: check.__name__)
def test_tt_matrix_keeps_the_contract(check):
    check(card("tt_matrix"))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tt_matrix(seeded(6, 4), 2, modes=((3, 2), (2, 3))), "do not split the 6 rows and 4 columns"),
        (lambda: tt_matrix(seeded(2, 6, 4), 2), "is not a matrix"),
        (lambda: TrainMatrix((torch.ones(2, 3, 2), torch.ones(3, 2, 2))), "do not make a train matrix"),
        (lambda: TrainMatrix((torch.ones(2, 3, 2), torch.ones(2))), "do not make a train matrix"),
        (lambda: TrainMatrix(()), "do not make a train matrix"),
    ],
)
def test_matrix_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
