"""Gaussian kernel products: the error promised, unbiased, few entries computed, near pairs found."""

import pytest
import torch

from polyad.algorithms import kernel_matvec, near_pairs
from polyad.algorithms.kernel_matvec import sample_size


def seeded(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def clusters(n, d=8, size=8, seed=0):
    """Queries and keys around common centres, ``size`` of each a centre: the kernel's sum grows as n."""
    centres = 6 * seeded(n // size, d, seed=seed)
    place = torch.arange(n) % len(centres)
    return tuple(centres[place] + 0.25 * seeded(n, d, seed=seed + s) for s in (1, 2))


def kernel(q, k):
    return torch.exp(-torch.cdist(q, k).square() / 2)


@pytest.mark.parametrize("signs", ["random", "positive", "one"])
@pytest.mark.parametrize("eps", [0.3, 1.0])
def test_the_error_is_within_eps_for_any_vector(signs, eps):
    q, k = clusters(1024)
    x = {"random": seeded(1024, seed=9), "positive": torch.ones(1024).double(), "one": torch.eye(1024)[3].double()}[
        signs
    ]
    exact = kernel(q, k) @ x
    for seed in range(3):
        y = kernel_matvec(q, k, x, eps=eps, generator=torch.Generator().manual_seed(seed))
        assert (y - exact).norm() <= eps * x.norm()


def test_few_entries_are_computed():
    shares = []
    for n in (512, 2048):
        q, k = clusters(n)
        i, _ = near_pairs(q, k, radius=3.0)
        shares.append((len(i) / n + sample_size(n, 0.5)) / n)
    assert shares[1] < 0.6 * shares[0]
    assert shares[1] < 0.25


def test_near_pairs_finds_most_of_them_once_each():
    q, k = clusters(512)
    radius = 2.5
    i, j = near_pairs(q, k, radius=radius)
    near = torch.cdist(q, k) < radius
    found = torch.zeros(512, 512, dtype=torch.bool)
    found[i, j] = True
    assert int(found.sum()) == len(i)
    assert (found & near).sum() > 0.9 * near.sum()


def test_the_estimate_is_unbiased_whatever_hashing_misses():
    q, k = seeded(60, 5), seeded(60, 5, seed=1)
    x = seeded(60, seed=2)
    exact = kernel(q, k) @ x
    g = torch.Generator().manual_seed(0)
    runs = torch.stack([kernel_matvec(q, k, x, eps=0.5, tables=1, generator=g) for _ in range(200)])
    alone = runs.var(0).sum().sqrt() / 200**0.5
    assert (runs.mean(0) - exact).norm() < 2 * alone + 1e-9


def test_bandwidth_scale_dtype_and_zeros():
    q, k = clusters(256)
    x = seeded(256, seed=3)
    plain = kernel_matvec(q, k, x)
    assert torch.allclose(kernel_matvec(7 * q, 7 * k, x, bandwidth=7.0), plain)
    assert torch.allclose(kernel_matvec(q, k, x * 1e200) / 1e200, plain)
    assert kernel_matvec(q.float(), k.float(), x.float()).dtype == torch.float32
    assert torch.equal(kernel_matvec(q, k, torch.zeros(256)), torch.zeros(256))
    exact = kernel_matvec(q, k, x, eps=1e-3)
    assert torch.allclose(exact, kernel(q, k) @ x)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: kernel_matvec(seeded(3, 2), seeded(3, 4), seeded(3)), "as many coordinates"),
        (lambda: kernel_matvec(seeded(3, 2), seeded(4, 2), seeded(3)), r"one number a key, shape \(4,\)"),
        (lambda: kernel_matvec(seeded(3, 2), seeded(3, 2), seeded(3), eps=0), "must be positive"),
        (lambda: kernel_matvec(seeded(3, 2), seeded(3, 2), seeded(3) / 0), "infinite"),
        (lambda: kernel_matvec(seeded(3), seeded(3), seeded(3)), "1 dimensions"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
