"""Sketch and solve: exact where it must be, and small in every coordinate with dense sketches only."""

import math

import pytest
import torch

from polyad.algorithms import sketched_lstsq
from polyad.algorithms.sketched_lstsq import SKETCHES, linf_rows


def seeded(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def localised(n, d, rows):
    """Leverage on the first d rows, residual on few others: what collides in a sparse sketch hurts one coordinate."""
    a = torch.zeros(n, d, dtype=torch.float64)
    a[:d] = torch.eye(d)
    b = torch.zeros(n, dtype=torch.float64)
    few = max(1, 3 * rows // d)
    b[d : d + few] = few**-0.5
    return a, b


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_consistent_equations_are_solved_exactly(sketch, dtype, scale):
    a, x = seeded(300, 5, dtype=dtype), seeded(5, 2, seed=1, dtype=dtype)
    found = sketched_lstsq(a * scale, (a @ x) * scale, 40, sketch=sketch)
    assert found.dtype == dtype
    assert torch.allclose(found, x, atol=1e3 * torch.finfo(dtype).eps)
    assert torch.equal(found, sketched_lstsq(a * scale, (a @ x) * scale, 40, sketch=sketch))


@pytest.mark.parametrize("sketch", ["srht", "gaussian"])
def test_dense_sketches_keep_the_bound_in_every_coordinate(sketch):
    n, d, eps = 4096, 64, 1.5
    rows = linf_rows(n, d, eps)
    for a, b in (localised(n, d, rows), (seeded(n, d), seeded(n, seed=1))):
        exact = torch.linalg.lstsq(a, b.unsqueeze(1)).solution.squeeze(1)
        scale = float((a @ exact - b).norm() / torch.linalg.svdvals(a)[-1])
        for seed in range(100, 103):  # not the seeds of a and b, whose numbers a Gaussian sketch would repeat
            x = sketched_lstsq(a, b, rows, sketch=sketch, generator=torch.Generator().manual_seed(seed))
            assert (x - exact).abs().max() <= eps / math.sqrt(d) * scale
            assert (x - exact).abs().max() < 8 / math.sqrt(d) * (x - exact).norm()


def test_count_sketch_breaks_it_on_localised_equations():
    n, d = 4096, 256
    rows = 4 * d
    a, b = localised(n, d, rows)
    eps = math.sqrt(d * math.log(n / 0.1) / rows)
    errors = [
        float(
            sketched_lstsq(a, b, rows, sketch="count_sketch", generator=torch.Generator().manual_seed(s)).abs().max()
        )
        for s in range(8)
    ]
    assert sum(e > eps / math.sqrt(d) for e in errors) >= 5


def test_the_kronecker_form_agrees_with_the_product():
    a, b, x = seeded(20, 3), seeded(30, 2, seed=1), seeded(6, seed=2)
    noise = 0.1 * seeded(600, seed=3)
    exact = torch.linalg.lstsq(torch.kron(a, b), (torch.kron(a, b) @ x + noise).unsqueeze(1)).solution.squeeze(1)
    clean = sketched_lstsq((a, b), torch.kron(a, b) @ x, 40)
    assert torch.allclose(clean, x)
    found = sketched_lstsq((a, b), torch.kron(a, b) @ x + noise, 300)
    assert (found - exact).norm() < 0.1 * x.norm()


def test_rank_deficient_and_zero_equations_get_the_solution_of_least_norm():
    a = seeded(100, 2) @ seeded(2, 4, seed=1)
    x = sketched_lstsq(a, a.sum(1), 20)
    assert torch.allclose(x, torch.linalg.pinv(a, rtol=1e-9) @ a.sum(1))
    assert torch.equal(sketched_lstsq(torch.zeros(9, 2), torch.ones(9), 3), torch.zeros(2))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: sketched_lstsq(seeded(9, 4), seeded(9), 3), "rows=3 is fewer than the 4 unknowns"),
        (lambda: sketched_lstsq(seeded(9, 4), seeded(8), 5), "must have 9 rows"),
        (lambda: sketched_lstsq(seeded(9, 4), seeded(9), 5, sketch="dct"), "'dct' is unknown"),
        (lambda: sketched_lstsq(seeded(9, 4).float(), seeded(9), 5), "both float32 or both float64"),
        (lambda: sketched_lstsq((seeded(3, 2), seeded(3, 2)), seeded(9), 5, sketch="gaussian"), "no form"),
        (lambda: sketched_lstsq(seeded(9, 4) / 0, seeded(9), 5), "infinite"),
        (lambda: sketched_lstsq(seeded(2, 9, 4), seeded(18), 5), "a matrix or a pair"),
        (lambda: linf_rows(9, 2, 0.0), "eps=0.0 must be positive"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
