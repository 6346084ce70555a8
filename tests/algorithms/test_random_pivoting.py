"""Random pivoting: both factorisations, their common rate, and the accuracy of Jacobi's method."""

import itertools

import pytest
import torch

from polyad.algorithms import random_pivoting
from polyad.algorithms.random_pivoting import coupling, pivot


def seeded(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(9, 6), (2, 3, 7, 5), (5, 5), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jacobi_is_the_svd(shape, dtype):
    x = seeded(*shape, dtype=dtype)
    u, s, vh = random_pivoting(x).svd()
    tight = 200 * torch.finfo(dtype).eps
    assert u.dtype == dtype
    assert torch.allclose(s, torch.linalg.svdvals(x), atol=tight)
    assert torch.allclose((u * s.unsqueeze(-2)) @ vh, x, atol=tight)
    eye = torch.eye(shape[-1], dtype=dtype).expand_as(vh)
    assert torch.allclose(u.mT @ u, eye, atol=tight)
    assert torch.allclose(vh @ vh.mT, eye, atol=tight)


@pytest.mark.parametrize("shape", [(9, 6), (2, 7, 5)])
def test_gram_schmidt_is_the_qr_decomposition(shape):
    x = seeded(*shape)
    q, r = random_pivoting(x, rule="gram_schmidt").qr()
    expected = torch.linalg.qr(x)
    signs = expected.R.diagonal(dim1=-2, dim2=-1).sign()
    assert torch.allclose(r, expected.R * signs.unsqueeze(-1), atol=1e-10)
    assert torch.allclose(q, expected.Q * signs.unsqueeze(-2), atol=1e-10)
    assert torch.allclose(q @ r, x, atol=1e-10)
    assert torch.equal(r.triu(), r)


@pytest.mark.parametrize("rule", ["jacobi", "gram_schmidt"])
@pytest.mark.parametrize("m", [2, 5, 8])
def test_the_coupling_decays_at_the_common_rate(rule, m):
    """The mean over all pairs is the expectation of one step."""
    x = seeded(20, m, m)
    pairs = list(itertools.combinations(range(m), 2))
    after = torch.zeros(20).double()
    for i, j in pairs:
        q, t = x.clone(), torch.eye(m).double().expand(20, m, m).clone()
        pivot(q, t, torch.tensor([i]), torch.tensor([j]), rule)
        after += coupling(q @ q.mT) / len(pairs)
    assert (after <= (1 - 2 / (m * (m - 1))) * coupling(x @ x.mT) + 1e-6).all()


@pytest.mark.parametrize("rule", ["jacobi", "gram_schmidt"])
def test_a_step_makes_its_pair_orthogonal_and_never_raises_the_coupling(rule):
    q, t = seeded(5, 5), torch.eye(5).double()
    x, before = q.clone(), coupling(q @ q.mT)
    pivot(q, t, torch.tensor([1]), torch.tensor([3]), rule)
    assert abs(float(q[1] @ q[3])) < 1e-12
    assert torch.allclose(t @ x, q)
    assert coupling(q @ q.mT) <= before * (1 + 1e-12)


def test_small_singular_values_keep_their_relative_accuracy():
    """In float32, against float64: columns scaled from 1e-7 to 1, where LAPACK in float32 loses the smallest."""
    x = seeded(20, 8, dtype=torch.float32) * 10.0 ** -torch.arange(8.0).flip(0)
    exact = torch.linalg.svdvals(x.double())
    found = random_pivoting(x).svd()[1]
    assert ((found.double() - exact).abs() / exact).max() < 3e-5
    assert ((torch.linalg.svdvals(x).double() - exact).abs() / exact).max() > 5e-4


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale_rank_deficiency_and_zeros(scale, dtype):
    x = (seeded(7, 2, dtype=dtype) @ seeded(2, 4, seed=1, dtype=dtype)) * scale
    u, s, vh = random_pivoting(x).svd()
    assert torch.allclose((u * s) @ vh / scale, x / scale, atol=1e3 * torch.finfo(dtype).eps)
    assert torch.isfinite(u).all()
    for rule in ("jacobi", "gram_schmidt"):
        made = random_pivoting(torch.zeros(4, 3, dtype=dtype), rule=rule)
        assert torch.equal(made.q, torch.zeros(4, 3, dtype=dtype))
        assert torch.equal(made.t, torch.eye(3, dtype=dtype))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: random_pivoting(seeded(3, 4)), r"wider than tall; give x.mT"),
        (lambda: random_pivoting(seeded(4, 3), rule="qr"), "rule='qr' is unknown"),
        (lambda: random_pivoting(seeded(4, 3) / 0), "infinite"),
        (lambda: random_pivoting(seeded(4)), "1 dimensions"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
