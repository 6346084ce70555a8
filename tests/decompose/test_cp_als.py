"""The canonical polyadic decomposition."""

import itertools
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.decompose import cp_als
from polyad.decompose.alternating.mttkrp import Products, residual
from polyad.decompose.cp._newton import levenberg
from polyad.decompose.cp._sweeps import Sweeps, damped_step, refine_factors
from polyad.formats import CP


def seeded(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def uniform(shape, rank, seed, *, noise=0.0, shift=0.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    factors = [torch.rand(n, rank, generator=generator, dtype=torch.float64) - shift for n in shape]
    x = CP(tuple(factors)).to_dense()
    e = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return (x + noise * x.norm() / e.norm() * e).to(dtype)


def error(found, x):
    return float((found.to_dense().double() - x.double()).norm() / x.double().norm())


def rows(batch, starts, rank, sizes):
    return [seeded(batch, starts, rank, n, seed=i) for i, n in enumerate(sizes)]


LETTERS = "abcde"


@pytest.mark.parametrize("sizes", [(3, 4, 5), (2, 3, 4, 5), (7, 6, 8, 9), (3, 2, 4, 2, 3), (1, 4, 1), (5, 1, 1, 2)])
@pytest.mark.parametrize(("batch", "starts"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_products_follow_factors_that_change_mode_after_mode(sizes, batch, starts):
    x = seeded(batch, *sizes)
    factors = rows(batch, starts, 2, sizes)
    products = Products(x)
    letters = LETTERS[: len(sizes)]
    for sweep, mode in itertools.product(range(3), range(len(sizes))):
        others = [i for i in range(len(sizes)) if i != mode]
        terms = ",".join(f"zsr{letters[i]}" for i in others)
        expected = torch.einsum(f"z{letters},{terms}->zsr{letters[mode]}", x, *[factors[i] for i in others])
        assert torch.allclose(products(mode, factors), expected)
        factors[mode] = factors[mode] + seeded(*factors[mode].shape, seed=10 * sweep + mode)


@pytest.mark.parametrize(("sizes", "gone"), [((4, 5, 6), [2, 1, 0, 2]), ((7, 6, 8, 9), [3, 2, 1, 0, 3])])
def test_a_kept_product_serves_the_modes_that_come_next(sizes, gone):
    made = []
    products = Products(seeded(1, *sizes))
    inner = products._without
    products._without = lambda mode, factor: made.append(mode) or inner(mode, factor)
    for step in range(len(gone) * (len(sizes) - 1)):
        products(step % len(sizes), rows(1, 1, 2, sizes))
    assert made == gone


def test_residual_does_not_cancel():
    factors = rows(2, 1, 2, (3, 4, 5))
    x = torch.einsum("zsra,zsrb,zsrc->zabc", *factors)
    norm = torch.tensor([2.0, 0.5], dtype=torch.float64)
    scaled = [factors[0] / norm[:, None, None, None], *factors[1:]]
    assert residual(x, scaled, norm).max() < 1e-28
    off = residual(x + 1e-9, scaled, norm, chunk=1)
    assert torch.allclose(off.squeeze(1), 60e-18 / norm**2, rtol=1e-5)


def test_the_account_of_the_error_is_right_to_the_last_digits():
    x = uniform((6, 7, 8), 3, 0, shift=0.5)[None]
    norm = x.flatten(1).norm(dim=1)
    run = Sweeps(x, rows(1, 1, 3, (6, 7, 8)), norm, 0.0)
    accounts, truths = [], []
    for _ in range(150):
        run.sweep()
        accounts.append(float(run.fit()))
        truths.append(float(residual(x, run.factors, norm)))
    assert truths[-1] < 1e-20
    assert accounts == pytest.approx(truths, rel=2e-2, abs=1e-27)


def test_steps_are_taken_whatever_the_matrix():
    for size in (0.0, 1e-300, 1.0, 1e200):
        step, gain = damped_step(size * torch.ones(2, 3, 3).double(), size * torch.ones(2, 3, 4).double(), 1e-16)
        assert torch.isfinite(step).all()
        assert (gain >= 0).all()
    step, _ = damped_step(torch.tensor([[1.0, 1], [1, 1]]).double(), torch.ones(2, 4).double(), 1e-16)
    assert torch.allclose(step.sum(0), torch.ones(4).double())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["centred", "uniform", "noisy"])
def test_planted_structure_is_found_from_every_seed(kind, seed):
    noise = 1e-3 if kind == "noisy" else 0.0
    x = uniform((12, 13, 14), 4, seed, noise=noise, shift=0.5 if kind == "centred" else 0.0)
    assert error(cp_als(x, 4), x) < (1e-3 if noise else 1e-9)


@pytest.mark.parametrize(("shape", "rank"), [((4, 4, 4), 5), ((3, 4, 5, 3), 6), ((2, 3, 2, 3, 2), 4)])
def test_ranks_above_the_modes_and_higher_orders(shape, rank):
    x = uniform(shape, rank, 1, shift=0.5)
    assert error(cp_als(x, rank), x) < 1e-6


def test_sweeps_alone_reach_what_newton_reaches():
    x = uniform((6, 7, 8), 3, 2, noise=0.1)[None]
    norm = x.flatten(1).norm(dim=1)
    start = rows(1, 4, 3, (6, 7, 8))
    slow = refine_factors(x, start, norm, stop=1e-9, max_iter=2000)[1]
    fast = levenberg(x / norm, start, max_iter=200, stop=1e-9, ridge=0.0, enough=torch.zeros(1).double())[1]
    assert float(slow.min()) == pytest.approx(float(fast.min()), rel=1e-4)


def test_the_form_is_fixed():
    found = cp_als(uniform((6, 7, 8), 3, 0, shift=0.5), 3)
    assert (found.weights.diff() <= 0).all()
    assert (found.weights >= 0).all()
    for factor in found.factors:
        assert torch.allclose(factor.norm(dim=0), torch.ones(3).double())
    for factor in found.factors[:-1]:
        assert (factor.gather(0, factor.abs().argmax(0, keepdim=True)) > 0).all()
    again = cp_als(uniform((6, 7, 8), 3, 0, shift=0.5), 3)
    assert all(torch.equal(a, b) for a, b in zip(found.factors, again.factors, strict=True))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100), st.permutations(range(3)))
def test_permuted_modes_give_permuted_factors(seed, order):
    x = uniform((5, 6, 7), 2, seed, shift=0.3)
    one, turned = cp_als(x, 2), cp_als(x.permute(*order), 2)
    assert error(one, x) < 1e-8
    assert torch.allclose(turned.to_dense(), one.to_dense().permute(*order), atol=1e-7 * float(x.norm()))
    assert torch.allclose(turned.weights, one.weights, rtol=1e-5)


def test_a_batch_is_its_entries():
    x = torch.stack([uniform((6, 5, 7), 3, seed, noise=0.01) for seed in range(6)])
    found = cp_als(x.view(2, 3, 6, 5, 7), 3, batch=2)
    assert found.factors[0].shape == (2, 3, 6, 3)
    dense = found.to_dense().view_as(x)
    for entry, whole in zip(x, dense, strict=True):
        best = error(cp_als(entry, 3), entry)
        assert float((whole - entry).norm() / entry.norm()) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(dtype):
    x = uniform((8, 9, 10), 3, 0, shift=0.5, dtype=dtype)
    found = cp_als(x.requires_grad_(), 3)
    assert found.dtype == dtype
    assert not found.weights.requires_grad
    assert error(found, x.detach()) < (2e-6 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e30), (torch.float32, 1e-30), (torch.float64, 1e250)])
def test_extreme_scales(dtype, scale):
    x = uniform((8, 9, 10), 3, 0, shift=0.5).to(dtype) * scale
    found = cp_als(x, 3)
    assert error(found * (1 / scale), x / scale) < 1e-5


@pytest.mark.parametrize("shape", [(4, 5, 6), (2, 3, 4, 5), (1, 5, 6), (1, 1, 4), (5, 6), (1, 1, 1)])
def test_plain_tensors(shape):
    rank = 1 if shape.count(1) > 1 else 3
    zero = cp_als(torch.zeros(shape), rank)
    assert not zero.to_dense().any()
    assert all(torch.isfinite(factor).all() for factor in zero.factors)
    assert error(cp_als(torch.ones(shape), rank), torch.ones(shape)) < 1e-5
    x = seeded(*shape)
    assert 0 <= error(cp_als(x, rank), x) < 1
    both = torch.stack((torch.zeros(shape), x.float()))
    assert not cp_als(both, rank, batch=1).to_dense()[0].any()


def test_order_two_is_the_singular_value_decomposition():
    x = seeded(6, 9)
    found = cp_als(x, 3)
    assert error(found, x) * float(x.norm()) == pytest.approx(float(torch.linalg.svdvals(x)[3:].norm()))


@pytest.mark.parametrize("tol", [0.0, 0.05, 0.4])
def test_the_tolerance_holds(tol):
    x = uniform((3, 4, 5), 2, 0, noise=0.02, shift=0.5)
    found = cp_als(x, tol=tol, restarts=2)
    assert error(found, x) <= tol + 1e-15
    assert found.rank == 12 if tol == 0.0 else found.rank <= (2 if tol == 0.05 else 12)
    assert cp_als(x.expand(2, 3, 4, 5), tol=0.05, batch=1).rank == 2


def test_degenerate_tensors_are_said_to_be_so_and_a_ridge_bounds_them():
    a, b = torch.eye(3).double()[0], torch.eye(3).double()[1]
    x = sum(torch.einsum("i,j,k->ijk", *p) for p in [(a, a, b), (a, b, a), (b, a, a)])
    with pytest.warns(UserWarning, match="nearly cancel"):
        cp_als(x, 2, restarts=2, stop=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cp_als(x, 2, ridge=1e-3)
    assert found.weights.max() < 10
    assert error(found, x) < 0.4


def test_progress_is_told_and_never_backwards():
    seen = []
    x = uniform((5, 5, 5), 6, 0, noise=0.3)
    found = cp_als(x, 6, restarts=2, callback=lambda *said: seen.append(said))
    errors = [values["error"] for _, _, values in seen]
    assert [step for step, _, _ in seen] == list(range(len(seen)))
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(errors))
    assert errors[-1] == pytest.approx(error(found, x), rel=1e-6)


def test_layout_does_not_matter():
    x = uniform((7, 6, 5), 3, 0, noise=0.01)
    assert torch.allclose(cp_als(x.permute(2, 1, 0).contiguous().permute(2, 1, 0), 3).weights, cp_als(x, 3).weights)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: cp_als(seeded(3, 4, 5), 13), "rank=13 exceeds what any tensor"),
        (lambda: cp_als(seeded(3, 4, 5), 0), "rank=0 is below 1"),
        (lambda: cp_als(seeded(3, 4, 5)), "exactly one of rank, tol"),
        (lambda: cp_als(seeded(3, 4, 5), 2, tol=0.1), "exactly one of rank, tol"),
        (lambda: cp_als(seeded(3, 4, 5) * float("nan"), 2), "60 NaN"),
        (lambda: cp_als(seeded(3, 4), 2, batch=1), "at least 3 are needed"),
        (lambda: cp_als(seeded(3, 0, 4), 2), "is empty"),
        (lambda: cp_als(seeded(3, 4, 5), 2, restarts=0), "restarts=0"),
        (lambda: cp_als(seeded(3, 4, 5), 2, ridge=-1.0), "ridge=-1.0"),
        (lambda: cp_als(seeded(3, 4, 5), 2, max_iter=-1), "max_iter=-1"),
        (lambda: cp_als(seeded(3, 4, 5), 2, batch=-1), "batch=-1"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_integers_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        cp_als(torch.ones(3, 3, 3, dtype=torch.long), 2)
