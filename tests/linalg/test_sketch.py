"""Sketches: unbiased, linear, batched, and as fast transforms equal to their matrices."""

import math

import pytest
import torch

from polyad.algorithms import TensorSRHT
from polyad.linalg.sketch import SRHT, Gaussian, SparseSign, count_sketch, walsh_hadamard

DRAWS = {
    "gaussian": Gaussian.draw,
    "srht": SRHT.draw,
    "sparse_sign": SparseSign.draw,
    "count_sketch": count_sketch,
}


def seeded(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("n", [1, 2, 32, 64, 512])
def test_walsh_hadamard_is_the_sylvester_matrix(n):
    i = torch.arange(n)
    bits = torch.tensor([[bin(int(a) & int(b)).count("1") for a in i] for b in i])
    h = torch.where(bits % 2 == 0, 1.0, -1.0).double()
    x = seeded(3, n, 2)
    assert torch.allclose(walsh_hadamard(x), h @ x)
    assert torch.allclose(walsh_hadamard(walsh_hadamard(x)), n * x)


@pytest.mark.parametrize("name", DRAWS)
def test_gram_matrices_are_kept_on_average(name):
    x = seeded(24, 3)
    generator = torch.Generator().manual_seed(1)
    products = [DRAWS[name](10, 24, generator=generator).apply(x) for _ in range(1500)]
    mean = torch.stack([s.T @ s for s in products]).mean(0)
    assert (mean - x.T @ x).norm() < 6 * x.norm() ** 2 / math.sqrt(10 * 1500)


@pytest.mark.parametrize("name", DRAWS)
def test_sketches_are_linear_batched_seeded_and_keep_dtypes(name):
    x, y = seeded(2, 3, 20, 4), seeded(2, 3, 20, 4, seed=1)
    sketch, again = DRAWS[name](9, 20), DRAWS[name](9, 20)
    assert torch.equal(sketch.apply(x), again.apply(x))
    assert torch.allclose(sketch.apply(x + 2 * y), sketch.apply(x) + 2 * sketch.apply(y))
    assert torch.allclose(sketch.apply(x)[1, 2], sketch.apply(x[1, 2]))
    matrix = sketch.apply(torch.eye(20, dtype=torch.float64))
    assert torch.allclose(matrix @ x, sketch.apply(x))
    assert sketch.apply(x.float()).dtype == torch.float32
    assert not torch.equal(DRAWS[name](9, 20, generator=torch.Generator().manual_seed(5)).apply(x), sketch.apply(x))


def test_the_srht_embeds_a_subspace():
    basis = torch.linalg.qr(seeded(1000, 10)).Q
    singular = torch.linalg.svdvals(SRHT.draw(400, 1000).apply(basis))
    assert singular.max() < 1.4
    assert singular.min() > 0.6
    constant = torch.full(
        (1024, 1), 1 / 32, dtype=torch.float64
    )  # without signs, one row of the transform has it all
    assert 0.6 < SRHT.draw(400, 1024).apply(constant).norm() < 1.4


def test_every_row_of_a_sparse_sign_is_within_its_band():
    matrix = SparseSign.draw(10, 50, nonzeros=3).apply(torch.eye(50, dtype=torch.float64))
    for band in (matrix[:3], matrix[3:6], matrix[6:]):
        assert (band.count_nonzero(0) == 1).all()
    assert torch.allclose(matrix.norm(dim=0), torch.ones(50, dtype=torch.float64))


def test_tensor_srht_of_factors_is_that_of_the_product_and_unbiased():
    a, b = seeded(5, 2), seeded(6, 3, seed=1)
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(6, 6, dtype=torch.float64)
    for _ in range(1000):
        sketch = TensorSRHT.draw(12, (5, 6), generator=generator)
        s = sketch.apply(a, b)
        total += s.T @ s / 1000
    assert torch.allclose(s, sketch.apply_dense(torch.kron(a, b)))
    exact = torch.kron(a, b).T @ torch.kron(a, b)
    assert (total - exact).norm() < 0.1 * torch.kron(a, b).norm() ** 2


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Gaussian.draw(0, 4), "rows=0 must be at least 1"),
        (lambda: SRHT.draw(3, 4).apply(torch.ones(5, 1)), "must have the 4 rows"),
        (lambda: SparseSign.draw(3, 4, nonzeros=4), "nonzeros=4 exceeds"),
        (lambda: walsh_hadamard(torch.ones(6, 1)), "power of two"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_integers_are_refused():
    with pytest.raises(TypeError, match="real floating-point"):
        SRHT.draw(3, 4).apply(torch.ones(4, 1, dtype=torch.long))
