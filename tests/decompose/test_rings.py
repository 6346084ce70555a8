"""Tensor rings, and what alternating least squares makes of rings and trains."""

import itertools
import math

import pytest
import torch

from polyad.decompose import tr_als, tr_svd, tt_als, tt_svd
from polyad.decompose.ranks.compare_formats import compare_formats
from polyad.formats import BlockTerm, KhatriRao, LowDisplacement, TensorRing, TensorTrain

F32, F64 = torch.float32, torch.float64


def seeded(*shape, dtype=F64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ring(shape, rank, *, seed=0, batch=()):
    ranks = [rank] * len(shape) if isinstance(rank, int) else rank
    bonds = zip(ranks, shape, (*ranks[1:], ranks[0]), strict=True)
    return TensorRing(tuple(seeded(*batch, r, n, s, seed=10 * seed + i) for i, (r, n, s) in enumerate(bonds)))


def train(shape, rank, *, seed=0):
    ends = len(shape) - 1
    sizes = [(*((rank,) if i else ()), n, *((rank,) if i < ends else ())) for i, n in enumerate(shape)]
    return TensorTrain(tuple(seeded(*size, seed=10 * seed + i) for i, size in enumerate(sizes)))


def inflated(x, rank):
    """The same ring with larger bonds: a random matrix and its pseudo-inverse between neighbours."""
    cores = list(x.cores)
    for i, r in enumerate(x.rank):
        wide = seeded(r, rank, seed=i)
        cores[i - 1], cores[i] = cores[i - 1] @ wide, torch.tensordot(torch.linalg.pinv(wide), cores[i], 1)
    return TensorRing(tuple(cores))


def error(found, x):
    exact = x if isinstance(x, torch.Tensor) else x.to_dense()
    return float((found.to_dense().double() - exact.double()).norm() / exact.double().norm())


def test_shifting_the_cores_shifts_the_modes():
    """Theorem 2.1 of Zhao et al.: a ring of the modes shifted in a circle is the cores shifted in a circle."""
    x = ring((3, 4, 5, 2), (2, 3, 1, 4))
    for places in range(-1, 5):
        order = [(places + i) % 4 for i in range(4)]
        found = x.shifted(places)
        assert torch.allclose(found.to_dense(), x.to_dense().permute(order))
        assert found.rank == tuple(x.rank[i] for i in order)


def test_entries_are_traces_of_products():
    x = ring((3, 4, 5), (2, 3, 4))
    a, b, c = x.cores
    assert float(x.to_dense()[1, 2, 3]) == pytest.approx(float((a[:, 1] @ b[:, 2] @ c[:, 3]).trace()))
    assert x.parameters == 2 * 3 * 3 + 3 * 4 * 4 + 4 * 5 * 2


@pytest.mark.parametrize("rank", [3, (3, 2, 4, 2, 3)])
def test_rounding_undoes_inflated_bonds(rank):
    x = ring((6, 7, 6, 5, 6), rank)
    big = inflated(x, 8)
    for found in (big.round(tol=1e-9), big.round(rank), big.round(x.rank)):
        assert found.rank == x.rank
        assert error(found, x) < 1e-12
    assert big.round(20).rank == big.rank


def test_rounding_keeps_the_tolerance_in_a_batch():
    x = ring((5, 6, 4, 5), 4, batch=(3,))
    decay = torch.logspace(0, -4, 4, dtype=F64)
    x = TensorRing(tuple(core * decay for core in x.cores))
    dense = x.to_dense()
    ranks = []
    for tol in (0.3, 1e-2, 1e-4):
        found = x.round(tol=tol)
        off = (found.to_dense() - dense).flatten(1).norm(dim=1) / dense.flatten(1).norm(dim=1)
        assert float(off.max()) <= tol
        ranks.append(sum(found.rank))
    assert ranks[0] < ranks[1] < ranks[2]


@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-2])
def test_the_tolerance_holds_where_a_ring_nearly_cancels(tol):
    decay = torch.logspace(0, -3, 4, dtype=F64)
    a = TensorRing(tuple(core * decay for core in ring((6, 5, 6, 5), 4).cores))
    b = TensorRing(tuple(core + 1e-3 * seeded(*core.shape, seed=9) for core in a.cores))
    x = a - b
    assert float(x.norm()) < 0.1 * float(a.norm())
    assert error(x.round(tol=tol), x) <= tol


@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-2])
def test_the_first_rank_is_split_as_evenly_as_it_divides(tol):
    x = seeded(12, 6, 5, 4) * torch.logspace(0, -2, 12, dtype=F64)[:, None, None, None]
    values = torch.linalg.svdvals(x.flatten(1))
    tails = values.square().flip(0).cumsum(0).flip(0).sqrt() / values.norm()
    needed = int((tails > tol * (2 / 4) ** 0.5).sum())  # δ₁ = √2 δ, δ = tol / √N
    found = tr_svd(x, tol=tol)
    first, second = found.rank[:2]
    assert first * second == needed
    assert second - first == min(needed // k - k for k in range(1, math.isqrt(needed) + 1) if needed % k == 0)
    assert error(found, x) <= tol
    for asked in (1, 2, 5):
        other = tr_svd(x, tol=tol, first=asked)
        assert other.rank[:2] == (asked, -(-needed // asked))
        assert error(other, x) <= tol


def test_a_first_bond_of_one_is_the_train():
    x = seeded(5, 6, 4)
    found = tr_svd(x, (1, 3, 3))
    assert found.rank == (1, 3, 3)
    tails = torch.stack([torch.linalg.svdvals(x.reshape(n, -1))[3:].norm() for n in (5, 30)])
    assert float(tails.max()) <= float((found.to_dense() - x).norm()) <= float(tails.norm())
    assert tr_svd(x, 100).rank[0] == 5
    assert error(tr_svd(x, 100), x) < 1e-13


@pytest.mark.parametrize(("shape", "rank"), [((8, 8, 8, 8), 2), ((10, 9, 8), (3, 2, 4)), ((4,) * 6, 2)])
def test_planted_rings_are_found(shape, rank):
    x = ring(shape, rank)
    found = tr_als(x.to_dense(), rank)
    assert found.rank == x.rank
    assert error(found, x) < 1e-10
    assert error(tr_svd(x.to_dense(), rank), x) > 0.1  # which does not see the ring


def test_a_batch_of_rings_is_found_at_once():
    x = ring((6, 6, 6, 6), 2, batch=(2, 1)).to_dense()
    found = tr_als(x, 2, batch=2)
    assert found.cores[0].shape == (2, 1, 2, 6, 2)
    assert float(((found.to_dense() - x).flatten(2).norm(dim=-1) / x.flatten(2).norm(dim=-1)).max()) < 1e-6


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_no_sweep_raises_the_error_of_a_ring(rank):
    x = seeded(5, 4, 6, 3)
    errors = []
    tr_als(x, rank, restarts=0, max_iter=40, callback=lambda i, n, values: errors.append(values["error"]))
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(errors))
    assert errors[-1] <= error(tr_svd(x, rank), x)


def test_rings_of_too_many_ranks_and_of_repeated_slices_stay_finite():
    for x in (seeded(3, 1, 4), torch.ones(4, 4, 4, dtype=F64), seeded(6, 1).expand(6, 5).reshape(6, 5, 1)):
        found = tr_als(x, 4, restarts=1, max_iter=20)
        assert found.rank == (4,) * 3
        assert error(found, x) < 1e-6


def test_a_ring_of_your_own_is_refined():
    x = ring((6, 7, 8), 2).to_dense() + 0.01 * seeded(6, 7, 8, seed=5)
    start = ring((6, 7, 8), (2, 2, 3), seed=3)
    found = tr_als(x, start=start, max_iter=300)
    assert found.rank == (2, 2, 3)
    assert error(found, x) < 0.01 * float(seeded(6, 7, 8, seed=5).norm() / x.norm())
    again = tr_als(x, start=found, max_iter=0)
    assert error(again, x) == pytest.approx(error(found, x))
    drawn = [tr_als(x, 2, generator=torch.Generator().manual_seed(i), max_iter=3) for i in (1, 1, 2)]
    assert torch.equal(drawn[0].to_dense(), drawn[1].to_dense())


def test_a_tolerance_takes_the_smaller_of_equal_ranks_and_singular_values():
    x = ring((6, 7, 8), 2).to_dense()
    found = tr_als(x, tol=1e-6)
    assert found.rank == (2, 2, 2)
    assert tr_svd(x, tol=1e-6).parameters > found.parameters
    flat = train((6, 7, 8), 1).to_dense()
    assert tr_als(flat, tol=1e-6).rank == (1, 1, 1)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_one_sweep_finds_a_train_from_anywhere(dtype):
    x = train((6, 5, 7, 4), 3).to_dense().to(dtype)
    found = tt_als(x, start=train((6, 5, 7, 4), 3, seed=7).to(dtype), max_iter=1)
    assert found.rank == (3, 3, 3)
    assert error(found, x) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("rank", [1, 2, (2, 4, 3)])
def test_no_sweep_raises_the_error_of_a_train(rank):
    x = seeded(5, 6, 4, 5)
    errors = []
    found = tt_als(x, rank, stop=0, max_iter=30, callback=lambda i, n, values: errors.append(values["error"]))
    assert all(b <= a + 1e-13 for a, b in itertools.pairwise(errors))
    assert errors[-1] < error(tt_svd(x, rank), x)
    assert error(found, x) == pytest.approx(errors[-1])
    for core in found.three_way()[1:]:
        rows = core.flatten(1)
        assert torch.allclose(rows @ rows.mT, torch.eye(len(rows), dtype=F64), atol=1e-12)
    assert torch.allclose(found.cores[0].norm(), found.norm())


def test_of_a_matrix_the_best_is_found():
    x = seeded(9, 7)
    best = float(torch.linalg.svdvals(x)[3:].norm() / x.norm())
    assert error(tt_als(x, start=train((9, 7), 3, seed=2), max_iter=200, stop=1e-9), x) == pytest.approx(
        best, rel=1e-6
    )
    assert error(tr_als(x, (1, 3), restarts=1), x) == pytest.approx(best, rel=1e-4)


def test_no_sweep_at_all_leaves_the_start():
    x = 5 * seeded(6, 5, 4)
    assert error(tr_als(x, 2, restarts=0, max_iter=0), tr_svd(x, 2).to_dense()) < 1e-12
    assert error(tt_als(x, 2, max_iter=0), tt_svd(x, 2).to_dense()) < 1e-12
    start = train((6, 5, 4), 2, seed=4)
    assert error(tt_als(x, start=start, max_iter=0), start) < 1e-12


def test_trains_in_a_batch_end_as_each_alone():
    x = seeded(3, 4, 5, 6)
    found = tt_als(x, 2, batch=1, max_iter=40, stop=0)
    for i in range(3):
        one = TensorTrain(tuple(core[i] for core in found.cores))
        assert error(one, x[i]) == pytest.approx(error(tt_als(x[i], 2, max_iter=40, stop=0), x[i]), rel=1e-6)
    assert tt_als(x, tol=0.3, batch=1).batch == 1
    assert tt_als(x[0, 0, 0], 1).shape == (6,)


def test_other_kinds_round_what_is_redundant():
    x = BlockTerm.random((6, 7, 8), generator=torch.Generator().manual_seed(0), dtype=F64)
    wide = [torch.cat((factor, seeded(*factor.shape[:-1], 1)), -1) for factor in x.factors]
    found = BlockTerm(torch.nn.functional.pad(x.core, (0, 1) * 3), tuple(wide)).round(tol=1e-9)
    assert found.rank == x.rank
    assert error(found, x) < 1e-12
    columns = KhatriRao(seeded(2, 5, 6), seeded(2, 7, 6))
    assert (columns + columns).round(tol=1e-9).rank == 2
    cut = torch.stack([torch.linalg.svdvals(w.reshape(5, 7))[1] for w in columns.to_dense().mT]).norm()
    assert error(columns.round(1), columns) == pytest.approx(float(cut / columns.norm()))
    low = LowDisplacement(seeded(9, 2), seeded(9, 2))
    assert (low + low * 3).round(tol=1e-9).rank == 2
    assert error((low + low * 3).round(2), low * 4) < 1e-12
    assert float(low.norm()) == pytest.approx(float(low.to_dense().norm()))


def test_rings_stand_in_the_trade_table():
    (point,) = compare_formats(seeded(6, 5, 4), ["ring"], tol=[0.1])
    assert isinstance(point.made, TensorRing)
    assert point.error is not None
    assert point.error <= 0.1


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: TensorRing((torch.ones(2, 3, 2), torch.ones(3, 4, 2))), "do not make a ring"),
        (lambda: TensorRing((torch.ones(2, 3, 3), torch.ones(3, 4, 4))), "do not make a ring"),
        (lambda: TensorRing((torch.ones(2), torch.ones(2, 3, 2))), "do not make a ring"),
        (lambda: TensorRing(()), "do not make a ring"),
        (lambda: ring((3, 4, 5), 2).transpose(), "is no matrix"),
        (lambda: ring((3, 4, 5), 2).round(), "exactly one of rank, tol"),
        (lambda: ring((3, 4, 5), 2).round((2, 2)), "each of the 3 bonds"),
        (lambda: tr_svd(seeded(3, 4, 5)), "exactly one of rank, tol"),
        (lambda: tr_svd(seeded(3, 4, 5), (2, 2)), "each of the 3 bonds"),
        (lambda: tr_svd(seeded(3, 4, 5), 2, first=2), "goes with tol"),
        (lambda: tr_als(seeded(3, 4, 5)), "exactly one of rank, tol, start"),
        (lambda: tr_als(seeded(3, 4, 5), start=ring((3, 4), 2)), "a ring of x's shape"),
        (lambda: tr_als(seeded(3, 4, 5), 2, restarts=-1), "restarts=-1 must be at least 0"),
        (lambda: tt_als(seeded(3, 4, 5), start=train((3, 4), 2)), "a train of x's shape"),
        (lambda: tt_als(seeded(3, 4, 5), 2, max_iter=-1), "max_iter=-1 is below 0"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
