"""Maintained Kronecker projections against those computed anew."""

import pytest
import torch

from polyad.algorithms import KroneckerProjection, private_median


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def definite(n, seed=0):
    x = seeded(n, n, seed=seed)
    return x @ x.T / n + torch.eye(n, dtype=torch.float64)


def projection(a, w, sides):
    n = len(w)
    values, vectors = torch.linalg.eigh(w)
    root = (vectors * values.sqrt()) @ vectors.T
    b = a @ (torch.kron(w, torch.eye(n, dtype=torch.float64)) if sides == 1 else torch.kron(root, root))
    return b.T @ torch.linalg.solve(b @ b.T, b)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("m", [1, 7, 16])
def test_queries_follow_low_rank_changes(sides, m):
    a, w = seeded(m, 16), definite(4)
    kept = KroneckerProjection(a, w, sides=sides)
    h = seeded(16, 3, seed=1)
    for step in range(4):
        p = seeded(4, 1 + step % 2, seed=step + 5)
        s = torch.eye(p.shape[1]).double() * (0.5 if step % 2 else 0.2)
        assert kept.update(p, s) == p.shape[1]
        w = w + p @ s @ p.T
        exact = projection(a, w, sides)
        assert torch.allclose(kept.w, w)
        assert torch.allclose(kept.query(h), exact @ h, atol=1e-9)
        assert torch.allclose(kept.query(h[:, 0]), exact @ h[:, 0], atol=1e-9)
    kept.update(p, -s)
    assert torch.allclose(kept.query(h), projection(a, w - p @ s @ p.T, sides) @ h, atol=1e-9)
    before = kept.query(h)
    kept.refresh()
    assert torch.allclose(kept.query(h), before, atol=1e-9)


@pytest.mark.parametrize("sides", [1, 2])
def test_small_changes_are_put_off_and_w_stays_near(sides):
    a, w = seeded(9, 25), definite(5)
    kept = KroneckerProjection(a, w, sides=sides, tol=0.1)
    before = kept.used
    assert kept.update(0.1 * seeded(5, 1, seed=2)) == 0
    assert kept.used is before
    brought = 0
    for step in range(12):
        brought += kept.update(0.15 * seeded(5, 1, seed=20 + step))
        relative = torch.linalg.eigvals(torch.linalg.solve(kept.used, kept.w)).real
        assert (relative - 1).abs().max() <= 0.1 + 1e-9
    assert 0 < brought < 12
    h = seeded(25, seed=3)
    assert torch.allclose(kept.query(h), projection(a, kept.used, sides) @ h, atol=1e-9)
    exact = projection(a, kept.w, sides) @ h
    assert (kept.query(h) - exact).norm() <= 0.3 * h.norm()


def test_answers_are_projections():
    kept = KroneckerProjection(seeded(5, 9), definite(3))
    kept.update(seeded(3, 1, seed=1))
    h = seeded(9, seed=2)
    once = kept.query(h)
    assert torch.allclose(kept.query(once), once)
    assert once.norm() <= h.norm()


def test_private_medians():
    answers = torch.cat((torch.full((20, 3), 2.0), torch.full((5, 3), 1e6)))
    g = torch.Generator().manual_seed(0)
    assert torch.equal(private_median(answers, generator=g), torch.full((3,), 2.0))
    noisy = torch.stack([private_median(answers, noise=0.1, generator=g) for _ in range(400)]) - 2
    assert abs(float(noisy.mean())) < 0.02
    assert abs(float(noisy.abs().mean()) - 0.1) < 0.02


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: KroneckerProjection(seeded(3, 8), definite(3)), r"must be \(m, n²\)"),
        (lambda: KroneckerProjection(seeded(3, 9), -definite(3)), "must be positive definite"),
        (lambda: KroneckerProjection(torch.ones(2, 9), definite(3)), "linearly dependent"),
        (lambda: KroneckerProjection(seeded(3, 9), definite(3), sides=3), "sides=3"),
        (lambda: KroneckerProjection(seeded(3, 9), definite(3)).update(seeded(4, 1)), r"must be \(3, r\)"),
        (lambda: KroneckerProjection(seeded(3, 9), definite(3)).update(9 * seeded(3, 1), -torch.eye(1)), "positive"),
        (lambda: KroneckerProjection(seeded(3, 9), definite(3)).query(seeded(8)), "must have 9 rows"),
        (lambda: KroneckerProjection(seeded(3, 9) / 0, definite(3)), "infinite"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
