"""The laws of decompositions and of rounding, on shapes, ranks and numbers that hypothesis draws."""

import functools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyad import decompose
from polyad.formats import Format, kinds
from polyad.testing.decompositions import error

DOUBLE = torch.float64
ROUNDING = 1e-7
"""Relative error that exact recovery may leave in float64; squares of it are of the dtype's epsilon."""

laws = functools.partial(
    settings, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
cubes = st.lists(st.integers(1, 6), min_size=3, max_size=4).map(tuple)
matrices = st.tuples(st.integers(1, 8), st.integers(1, 8))
seeds = st.integers(0, 2**31 - 1)
tolerances = st.floats(1e-6, 0.9)
scales = st.integers(-30, 30).map(lambda power: 10.0**power)


def seeded(shape, seed):
    """Random numbers whose last mode decays at a rate of the seed's, so that ranks are not all full."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    return x * torch.logspace(0, -(seed % 7), shape[-1], dtype=DOUBLE)


def limits(shape):
    return [math.prod(shape[:k]) for k in range(1, len(shape))]


def unfolding_tail(x, mode, rank):
    return float(torch.linalg.svdvals(x.movedim(mode, 0).flatten(1))[rank:].square().sum())


BY_RANK = {  # the shapes, and of a shape the ranks that are asked for
    "svd": (matrices, lambda s: 1 + min(s) // 2),
    "st_hosvd": (cubes, lambda s: tuple(1 + n // 2 for n in s)),
    "hooi": (cubes, lambda s: tuple(1 + n // 2 for n in s)),
    "tt_svd": (cubes, lambda s: 2),
    "hierarchical_tucker": (cubes, lambda s: 2),
    "t_svd": (st.tuples(*[st.integers(1, 6)] * 3), lambda s: 1 + min(s[:2]) // 2),
    "kronecker_svd": (st.sampled_from([(4, 6), (6, 6), (8, 9), (1, 4)]), lambda s: 1),
    "tt_matrix": (st.sampled_from([(4, 6), (6, 6), (8, 4)]), lambda s: 2),
    "low_displacement": (st.sampled_from([(4, 4), (6, 4), (5, 7)]), lambda s: 2),
    "masked_als": (matrices, lambda s: 1 + min(s) // 2),
}
BY_SHAPE = ("nearest_circulant", "nearest_toeplitz", "nearest_monarch")
WITH_TOL = (
    "svd",
    "st_hosvd",
    "hooi",
    "tt_svd",
    "hierarchical_tucker",
    "t_svd",
    "kronecker_svd",
    "tt_matrix",
    "cp_als",
)


@pytest.mark.parametrize("name", BY_RANK)
def test_what_a_decomposition_made_it_recovers_exactly(name):
    shapes, ranks = BY_RANK[name]
    function = getattr(decompose, name)

    @laws(max_examples=15)
    @given(shapes, seeds)
    def law(shape, seed):
        once = function(seeded(shape, seed), ranks(shape)).to_dense()
        assert error(function(once, ranks(shape)), once) < ROUNDING

    law()


@pytest.mark.parametrize("name", BY_SHAPE)
def test_the_nearest_of_a_kind_is_itself(name):
    function = getattr(decompose, name)

    @laws(max_examples=10)
    @given(st.sampled_from([(4, 4), (6, 4), (4, 6), (1, 4), (8, 8)]), seeds)
    def law(shape, seed):
        x = seeded(shape, seed)
        once = function(x)
        assert error(function(once.to_dense()), once.to_dense()) < ROUNDING
        assert error(once, x) <= 1 + ROUNDING

    law()


@laws(max_examples=10)
@given(st.lists(st.integers(3, 6), min_size=3, max_size=4).map(tuple), st.integers(1, 3), seeds)
def test_planted_sums_of_outer_products_are_found(shape, rank, seed):
    draw = torch.Generator().manual_seed(seed)
    planted = kinds()["CP"](
        tuple(torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=DOUBLE))[0][:, :rank] for n in shape)
    )
    assert error(decompose.cp_als(planted.to_dense(), rank), planted.to_dense()) < 1e-5


@pytest.mark.parametrize("name", [name for name in BY_RANK if name != "masked_als"])
def test_multiples_have_multiples_of_the_answer(name):
    shapes, ranks = BY_RANK[name]
    function = getattr(decompose, name)

    @laws(max_examples=10)
    @given(shapes, seeds, scales, st.booleans())
    def law(shape, seed, factor, negative):
        x, factor = seeded(shape, seed), -factor if negative else factor
        one, many = (function(y, ranks(shape)).to_dense() for y in (x, factor * x))
        assert float((many / factor - one).norm()) <= 1e-6 * float(x.norm())

    law()


@laws(max_examples=20)
@given(cubes, seeds, st.randoms(use_true_random=False))
def test_the_error_does_not_depend_on_the_order_of_modes(shape, seed, shuffle):
    order = list(range(len(shape)))
    shuffle.shuffle(order)
    x, rank = seeded(shape, seed), [1 + n // 2 for n in shape]
    turned, turned_rank = x.permute(order), tuple(rank[i] for i in order)
    for function in (functools.partial(decompose.st_hosvd, sequential=False), decompose.hooi):
        given_order, other = error(function(x, tuple(rank)), x), error(function(turned, turned_rank), turned)
        assert abs(given_order - other) < (1e-7 if function is not decompose.hooi else 2e-2)


@laws(max_examples=20)
@given(cubes, seeds)
def test_errors_are_within_the_bounds_of_theory(shape, seed):
    x = seeded(shape, seed)
    rank = tuple(1 + n // 2 for n in shape)
    tails = [unfolding_tail(x, mode, r) for mode, r in enumerate(rank)]
    for sequential in (True, False):
        lost = float((decompose.st_hosvd(x, rank, sequential=sequential).to_dense() - x).square().sum())
        assert max(tails) * (1 - 1e-9) - 1e-18 <= lost <= sum(tails) * (1 + 1e-9) + 1e-18
    bonds = [float(torch.linalg.svdvals(x.reshape(n, -1))[2:].square().sum()) for n in limits(shape)]
    lost = float((decompose.tt_svd(x, 2).to_dense() - x).square().sum())
    assert max(bonds) * (1 - 1e-9) - 1e-18 <= lost <= sum(bonds) * (1 + 1e-9) + 1e-18


@pytest.mark.parametrize("name", WITH_TOL)
def test_the_error_is_never_above_the_tolerance(name):
    shapes = BY_RANK[name][0] if name in BY_RANK else st.lists(st.integers(1, 4), min_size=3, max_size=3).map(tuple)
    function = getattr(decompose, name)

    @laws(max_examples=15)
    @given(shapes, seeds, tolerances, st.sampled_from([DOUBLE, torch.float32]))
    def law(shape, seed, tol, dtype):
        x = seeded(shape, seed).to(dtype)
        slack = 1 + 1e-9 if dtype == DOUBLE else 1 + 1e-4
        assert error(function(x, tol=tol), x) <= max(tol, 4 * torch.finfo(dtype).eps) * slack

    law()


ROUNDED = {name: kind for name, kind in kinds().items() if kind.round is not Format.round}
APART = {"BlockTerm", "TensorRing"}
"""Kinds whose rounding, as they say, does not join what a sum put side by side."""


def drawn(kind, shape, seed):
    return kind.random(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def shapes_of(name):
    if name in ("TensorTrain", "TreeNetwork", "Tucker", "TensorRing"):
        return cubes
    return st.sampled_from([(4, 6), (8, 4), (6, 6)]) if name != "Tubal" else st.just((4, 5, 3))


@pytest.mark.parametrize("name", ROUNDED)
def test_rounding_twice_is_rounding_once(name):
    @laws(max_examples=12)
    @given(shapes_of(name), seeds, st.sampled_from([1e-8, 0.05, 0.3, 0.6]))
    def law(shape, seed, tol):
        x = drawn(ROUNDED[name], shape, seed)
        once = x.round(tol=tol)
        assert error(once, x.to_dense()) <= tol + ROUNDING
        twice = once.round(rank=once.rank)
        assert twice.rank == once.rank
        assert error(twice, once.to_dense()) < ROUNDING
        assert once.round(tol=1e-8).parameters <= once.parameters

    law()


@pytest.mark.parametrize("name", ROUNDED)
def test_added_then_rounded_is_the_dense_sum(name):
    @laws(max_examples=12)
    @given(shapes_of(name), seeds, st.sampled_from([1e-10, 1e-3, 0.2]))
    def law(shape, seed, tol):
        a, b = drawn(ROUNDED[name], shape, seed), drawn(ROUNDED[name], shape, seed + 1)
        total, dense = a + b, a.to_dense() + b.to_dense()
        found = total.round(tol=tol)
        assert error(found, dense) <= tol + ROUNDING
        same = (a + a).round(tol=ROUNDING)
        assert error(same, 2 * a.to_dense()) < 10 * ROUNDING
        assert name in APART or same.parameters <= a.parameters

    law()


def repeated(shape, rank, dtype, seed=0):
    """A tensor of multilinear rank ``rank`` in every mode whose unfoldings have all their singular values equal."""
    x = torch.zeros((rank,) * len(shape), dtype=DOUBLE)
    for i in range(rank):
        x[(i,) * len(shape)] = 1
    draw = torch.Generator().manual_seed(seed)
    for mode, n in enumerate(shape):
        basis = torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=DOUBLE))[0][:, :rank]
        x = torch.movedim(torch.tensordot(basis, x, ([1], [mode])), 0, mode)
    return x.to(dtype).requires_grad_()


DIFFERENTIABLE = {
    "svd": ((6, 5), lambda r: {"rank": r}),
    "st_hosvd": ((6, 5, 4), lambda r: {"rank": (r, r, r)}),
    "hosvd": ((6, 5, 4), lambda r: {"rank": (r, r, r), "sequential": False}),
    "tt_svd": ((6, 5, 4), lambda r: {"rank": r}),
    "hierarchical_tucker": ((6, 5, 4), lambda r: {"rank": r}),
    "kronecker_svd": ((6, 4), lambda r: {"rank": r}),
}


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_at_repeated_singular_values(name, dtype):
    shape, arguments = DIFFERENTIABLE[name]
    function = getattr(decompose, name.replace("hosvd", "st_hosvd") if name == "hosvd" else name)
    x = repeated(shape, 3, dtype)
    if name == "kronecker_svd":  # four products of equal norms, of which two or all four are kept
        x = torch.eye(6, dtype=dtype)[:, :4].clone().requires_grad_()
    for rank in (1, 2):  # the cut goes through equal values: nothing is determined, but all is finite
        found = function(x, **arguments(rank)).to_dense()
        (gradient,) = torch.autograd.grad(found.square().sum() + found.sum(), x)
        assert torch.isfinite(gradient).all()
    # of the exact rank the error is of second order, so that the square's gradient is 2 x, whatever the vectors are
    full = {"rank": 4} if name == "kronecker_svd" else arguments(3)
    (gradient,) = torch.autograd.grad(function(x, **full).to_dense().square().sum(), x)
    assert torch.allclose(gradient, 2 * x, atol=1e-8 if dtype == DOUBLE else 2e-3)
