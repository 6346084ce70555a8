"""The lasso: its optimality conditions, and which supports it finds easy."""

import math

import pytest
import torch

from polyad.algorithms import lasso


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_an_orthonormal_design_is_soft_thresholding():
    x = torch.linalg.qr(seeded(40, 10)).Q * math.sqrt(40)
    y = seeded(40, 3, seed=1)
    level = 0.3 * math.sqrt(2 * math.log(10) / 40)
    plain = x.T @ y / 40
    expected = plain.sign() * (plain.abs() - level).clamp(min=0)
    assert torch.allclose(lasso(x, y, noise=0.3), expected, atol=1e-6)
    assert torch.allclose(lasso(x, y[:, 0], noise=0.3), expected[:, 0], atol=1e-6)


def test_the_optimality_conditions_hold():
    x, y = seeded(50, 120) * torch.linspace(0.1, 3, 120).double(), seeded(50, seed=1)
    w = lasso(x, y, noise=0.2, stop=1e-10, max_iter=50_000)
    norms = x.norm(dim=0) / math.sqrt(50)
    slope = x.T @ (y - x @ w) / 50 / norms
    level = 0.2 * math.sqrt(2 * math.log(120) / 50)
    assert (slope.abs() <= level * (1 + 1e-4)).all()
    used = w != 0
    assert 0 < used.sum() < 50
    assert torch.allclose(slope[used], level * w[used].sign(), rtol=1e-4)


def test_a_support_of_cancelling_columns_is_hard_and_a_random_one_is_not():
    n, d, noise, gap = 80, 200, 0.1, 1e-3
    first, apart = seeded(n, d // 2), seeded(n, d // 2, seed=1)
    x = torch.cat((first, first + gap * apart), 1)
    easy, hard = torch.zeros(d).double(), torch.zeros(d).double()
    easy[torch.randperm(d, generator=torch.Generator().manual_seed(2))[:4]] = 1.0
    hard[:2], hard[d // 2 : d // 2 + 2] = -1 / gap, 1 / gap
    errors = []
    for w in (easy, hard):
        signal = x @ w
        found = lasso(x, signal + noise * seeded(n, seed=3), noise=noise)
        errors.append(float((x @ found - signal).square().mean() / signal.square().mean()))
    assert errors[0] < 0.05
    assert errors[1] > max(0.1, 5 * errors[0])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_zero_columns_and_zero_targets(scale):
    x, y = seeded(30, 8).float(), seeded(30, seed=1).float()
    x[:, 3] = 0
    plain = lasso(x, y, noise=0.1)
    assert plain[3] == 0
    assert torch.allclose(lasso(x * scale, y, noise=0.1) * scale, plain, atol=1e-4)
    assert torch.allclose(lasso(x, y * scale, noise=0.1 * scale) / scale, plain, atol=1e-4)
    assert torch.equal(lasso(x, torch.zeros(30), noise=0.1), torch.zeros(8))
    assert torch.equal(lasso(torch.zeros(30, 8), y, noise=0.1), torch.zeros(8))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: lasso(seeded(4, 3), seeded(5), noise=1.0), r"must be \(N, d\)"),
        (lambda: lasso(seeded(4, 3), seeded(4), noise=-1.0), "noise=-1.0"),
        (lambda: lasso(seeded(4, 3) / 0, seeded(4), noise=1.0), "infinite"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
