"""Coordinated sampling: unbiased, bounded, joined by keys."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.algorithms import coordinated_sampling
from polyad.algorithms.coordinated_sampling import uniform_hash

RULES = ("priority", "threshold")


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(a, b, rows, rule, seed):
    return tuple(
        coordinated_sampling(x, rows, rule=rule, generator=torch.Generator().manual_seed(seed)) for x in (a, b)
    )


@pytest.mark.parametrize("rule", RULES)
def test_the_estimate_is_unbiased_and_its_error_bounded(rule):
    n, rows, trials = 300, 40, 400
    heavy = torch.where(torch.arange(n) % 50 == 0, 20.0, 1.0).double().unsqueeze(1)
    a = seeded(n, 3) * heavy
    b = seeded(n, 2, seed=1) * heavy.flip(0)
    made = [both(a, b, rows, rule, seed) for seed in range(trials)]
    found = torch.stack([left.product(right) for left, right in made])
    exact, size = a.T @ b, float(a.norm() * b.norm())
    mean_square = float((found - exact).square().sum((1, 2)).mean())
    assert mean_square <= 2 * size**2 / (rows - 1)
    assert (found.mean(0) - exact).norm() < 4 * (mean_square / trials) ** 0.5
    sizes = torch.tensor([float(len(left.keys)) for left, _ in made])
    assert (sizes == rows).all() if rule == "priority" else sizes.mean() < rows + 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(RULES), st.floats(1e-3, 1e3))
def test_sketches_do_not_depend_on_scale_or_order(seed, rule, scale):
    x = seeded(50, 4, seed=seed)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    plain = coordinated_sampling(x, 9, rule=rule)
    moved = coordinated_sampling(x[order] * scale, 9, rule=rule, keys=order)
    assert torch.equal(plain.keys, moved.keys)
    assert torch.allclose(plain.rows * scale, moved.rows)
    assert torch.allclose(plain.chance, moved.chance)


@pytest.mark.parametrize("rule", RULES)
def test_sketches_that_keep_everything_are_exact(rule):
    a, b = seeded(30, 3), seeded(30, 2, seed=1)
    left, right = both(a, b, 10_000, rule, 0)
    assert torch.allclose(left.product(right), a.T @ b)


def test_rows_are_joined_by_their_keys():
    a, b = seeded(4, 2), seeded(3, 1, seed=1)
    left = coordinated_sampling(a, 9, keys=torch.tensor([7, -1, 5, 40]))
    right = coordinated_sampling(b, 9, keys=torch.tensor([5, 6, 7]))
    assert torch.allclose(left.product(right), a[[0, 2]].T @ b[[2, 0]])
    apart = coordinated_sampling(b, 9, keys=torch.tensor([100, 101, 102]))
    assert torch.equal(left.product(apart), torch.zeros(2, 1, dtype=torch.float64))


def test_coordination_is_what_makes_rows_meet():
    a, b = seeded(2000, 2), seeded(2000, 2, seed=1)
    left, right = both(a, b, 100, "priority", 3)
    shared = torch.isin(left.keys, right.keys).sum()
    other = coordinated_sampling(b, 100, generator=torch.Generator().manual_seed(4))
    assert shared > 30 > 2 * torch.isin(left.keys, other.keys).sum()
    with pytest.raises(ValueError, match="seeds 3 and 4"):
        left.product(other)


def test_a_generators_state_does_not_matter():
    g = torch.Generator().manual_seed(8)
    x = seeded(60, 2)
    first = coordinated_sampling(x, 5, generator=g)
    torch.rand(5, generator=g)
    assert torch.equal(first.keys, coordinated_sampling(x, 5, generator=g).keys)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales_and_rows_of_zeros(scale):
    x = seeded(20, 3).float() * scale
    x[4] = 0
    sketch = coordinated_sampling(x, 19)
    assert 4 not in sketch.keys
    assert torch.isfinite(sketch.chance).all()
    assert len(coordinated_sampling(torch.zeros(5, 2), 3).keys) == 0
    empty = coordinated_sampling(torch.zeros(5, 2), 3)
    assert torch.equal(empty.product(empty), torch.zeros(2, 2))


def test_hashes_are_uniform_and_differ_by_seed():
    u = uniform_hash(torch.arange(-50_000, 50_000), 1)
    counts = torch.histc(u.float(), 20, 0, 1)
    assert (counts - 5000).abs().max() < 350
    v = uniform_hash(torch.arange(-50_000, 50_000), 2)
    assert abs(float(torch.corrcoef(torch.stack((u, v)))[0, 1])) < 0.02
    assert abs(float(torch.corrcoef(torch.stack((u[1:], u[:-1])))[0, 1])) < 0.02


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: coordinated_sampling(seeded(5, 2), 0), "rows=0 must be at least 1"),
        (lambda: coordinated_sampling(seeded(5), 1), "must be a matrix"),
        (lambda: coordinated_sampling(seeded(3, 2), 1, keys=torch.tensor([1, 1, 2])), "keys are repeated"),
        (lambda: coordinated_sampling(seeded(3, 2), 1, keys=torch.tensor([1, 2])), "one integer a row"),
        (lambda: coordinated_sampling(seeded(3, 2), 1, rule="all"), "rule='all' is unknown"),
        (lambda: coordinated_sampling(seeded(3, 2) / 0, 1), "infinite"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
