"""Generalised CP: losses, bounds and missing entries."""

import itertools

import pytest
import torch

from polyad.decompose import gcp
from polyad.decompose.alternating.bounded_lbfgs import minimise


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(*shape, rank=2, seed=0, dtype=torch.float64):
    draw = seeded(seed)
    letters = "abcdefgh"[: len(shape)]
    factors = [0.2 + torch.rand(n, rank, generator=draw, dtype=dtype) for n in shape]
    return torch.einsum(",".join(c + "z" for c in letters) + "->" + letters, *factors)


def error(format, x):
    dense, x = format.to_dense().double(), x.double()
    return float((dense - x).norm() / x.norm())


def test_bounded_minima_are_found():
    goal = torch.tensor([3.0, -2.0, 0.5, -1.0], dtype=torch.float64)
    hessian = torch.tensor([[100, 3, 1, 0], [3, 50, 0, 0], [1, 0, 10, 2], [0, 0, 2, 2]], dtype=torch.float64)

    def function(v):
        return float((v - goal) @ hessian @ (v - goal)) / 2, hessian @ (v - goal)

    seen = []
    start = torch.ones(4, dtype=torch.float64)
    free = minimise(function, start, nonnegative=False, max_iter=100, stop=0, after=seen.append)
    assert torch.allclose(free, goal, atol=1e-6)
    assert all(b < a for a, b in itertools.pairwise(seen))
    held = minimise(function, start, nonnegative=True, max_iter=100, stop=0, after=seen.append)
    _, slope = function(held)
    assert bool((held >= 0).all())
    assert bool((slope > -1e-5).all())  # the conditions of a bounded minimum
    assert float((held * slope).abs().max()) < 1e-5
    assert int((held == 0).sum()) == 2


@pytest.mark.parametrize("shape", [(14, 12), (7, 6, 8), (4, 5, 3, 4)])
@pytest.mark.parametrize("loss", ["normal", "l1", lambda x, m: (x - m).square() + (x - m) ** 4])
def test_planted_structure_is_found_where_a_fifth_is_missing(shape, loss):
    x = planted(*shape)
    mask = torch.rand(shape, generator=seeded(5)) > 0.2
    found = gcp(torch.where(mask, x, torch.nan), 2, loss=loss, mask=mask, stop=1e-10)
    assert error(found, x) < 2e-2
    assert error(gcp(x, 2, loss=loss, stop=1e-10), x) < 2e-3


def test_absolute_values_bear_outliers_and_squares_do_not():
    x = planted(10, 9, 8)
    spoilt = x + 20 * (torch.rand(x.shape, generator=seeded(1)) < 0.03)
    assert error(gcp(spoilt, 2, loss="l1"), x) < 0.01
    assert error(gcp(spoilt, 2), x) > 0.1


def test_counts_are_fitted_better_by_their_own_loss_and_bounds_hold():
    rate = 10 * planted(12, 12, 12, rank=2)
    rate[:6] *= 0.02
    x = torch.poisson(rate, generator=seeded(2))
    found = gcp(x, 2, loss="poisson")
    assert all(bool((f >= 0).all()) for f in found.factors)

    def divergence(m):
        return float((m - rate - rate * (m.clamp(min=1e-3) / rate).log()).sum())

    assert divergence(found.to_dense()) < divergence(gcp(x, 2, nonnegative=True).to_dense())
    assert float(found.to_dense().sum()) == pytest.approx(float(x.sum()), rel=1e-3)  # as at any Poisson optimum


def test_log_odds_are_recovered_from_ones_and_zeros():
    odds = 4 * (planted(25, 25, 25, rank=1) - 0.35)
    x = torch.bernoulli(odds.sigmoid(), generator=seeded(3))
    found = gcp(x, 2, loss="bernoulli").to_dense().sigmoid()
    assert float((found - odds.sigmoid()).abs().mean()) < 0.05


@pytest.mark.parametrize("loss", ["normal", "l1", "poisson"])
def test_scale_dtype_and_layout_carry_over(loss):
    x = planted(6, 5, 7, dtype=torch.float32)
    for scale in (1e-30, 1e30):
        assert error(gcp(x * scale, 2, loss=loss, max_iter=250), x.double() * scale) < 0.02
    assert error(gcp(x.permute(2, 0, 1), 2, loss=loss, max_iter=250), x.permute(2, 0, 1)) < 0.02
    half = gcp(x.bfloat16().requires_grad_(), 2, loss=loss, max_iter=250)
    assert half.dtype == torch.bfloat16
    assert error(half, x) < 0.05
    assert not gcp(torch.zeros(4, 1, 5), 2, loss=loss, max_iter=250).to_dense().any()
    assert error(gcp(torch.ones(4, 1, 5), 2, loss=loss, max_iter=250), torch.ones(4, 1, 5)) < 0.01


def test_losses_reported_only_fall():
    seen = []
    gcp(planted(6, 5, 7, rank=4), 2, max_iter=20, stop=0, callback=lambda i, n, v: seen.append((i, n, v["loss"])))
    assert [i for i, _, _ in seen] == list(range(20))
    assert all(b[2] < a[2] for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda x: gcp(-x, 1, loss="poisson"), ValueError, "this loss allows 0"),
        (lambda x: gcp(2 * x, 1, loss="bernoulli"), ValueError, "this loss allows 0"),
        (lambda x: gcp(x, 1, loss="huber"), ValueError, "loss='huber' is not known"),
        (lambda x: gcp(x, 13), ValueError, "rank=13 exceeds"),
        (lambda x: gcp(x / 0, 1), ValueError, "60 infinite"),
        (lambda x: gcp(x, 1, mask=x > 5), ValueError, "hides every entry"),
        (lambda x: gcp(x, 1, mask=x), ValueError, "must hold bools"),
        (lambda x: gcp(x, 1, mask=x[0] > 0), ValueError, "in x's shape"),
        (lambda x: gcp(x.int(), 1), TypeError, "torch.int32"),
        (lambda x: gcp(x[0, 0], 1), ValueError, "1 dimensions"),
    ],
)
def test_refusals(call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call(torch.ones(3, 4, 5))
