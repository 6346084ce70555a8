"""Truncated singular value decompositions: gradients, the iteration for small ranks, scales."""

import pytest
import torch
from torch.autograd import gradcheck

from polyad.decompose import svd
from polyad.linalg import left_singular, truncated_svd
from polyad.linalg.krylov import krylov

DOUBLE = torch.float64


def seeded(*shape, dtype=DOUBLE, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def planted(n, m, s, dtype=DOUBLE, seed=0):
    k = len(s)
    u = torch.linalg.qr(seeded(n, k, seed=seed))[0]
    v = torch.linalg.qr(seeded(m, k, seed=seed + 1))[0]
    return ((u * s.to(DOUBLE)) @ v.mT).to(dtype)


def product(x, rank, **settings):
    u, s, vh = truncated_svd(x, rank, **settings)
    return (u * s.unsqueeze(-2)) @ vh


def projections(x, rank, **settings):
    u, s, vh = truncated_svd(x, rank, **settings)
    return u @ u.mT, s, vh.mT @ vh


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 6), (2, 4, 5)])
@pytest.mark.parametrize("rank", [2, 4])
def test_gradients_agree_with_differences(shape, rank):
    x = seeded(*shape).requires_grad_()
    assert gradcheck(lambda x: product(x, rank), x)
    assert gradcheck(lambda x: projections(x, rank), x)
    assert gradcheck(lambda x: truncated_svd(x, rank), x)


def test_gradients_of_left_vectors_agree_with_differences():
    x = seeded(4, 9).requires_grad_()
    assert gradcheck(lambda x: left_singular(x, 2), x)
    u, _ = left_singular(seeded(5, 2).requires_grad_(), 4)
    u.sum().backward()


def test_gradients_at_equal_values_are_those_of_what_does_not_depend_on_the_choice():
    x = planted(5, 6, torch.tensor([2.0, 2.0, 2.0, 1.0, 0.5])).requires_grad_()
    assert gradcheck(lambda x: product(x, 3), x)
    x = planted(5, 6, torch.tensor([2.0, 1.0, 1.0, 0.0, 0.0])).requires_grad_()
    assert gradcheck(lambda x: product(x, 3), x)


@pytest.mark.parametrize(
    "x", [torch.eye(6), torch.zeros(5, 6), torch.ones(6, 4), torch.diag(torch.tensor([1.0, 1, 0]))]
)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_gradients_are_finite_where_nothing_is_determined(x, rank, dtype):
    x = x.to(dtype).requires_grad_()
    for part in truncated_svd(x, rank):
        (gradient,) = torch.autograd.grad((part * seeded(*part.shape, dtype=dtype)).sum(), x, retain_graph=True)
        assert torch.isfinite(gradient).all()
    (gradient,) = torch.autograd.grad(left_singular(x, rank)[0].sum(), x)
    assert torch.isfinite(gradient).all()


def test_tolerances_carry_gradients_past_the_padding():
    x = torch.stack([seeded(8, 6), planted(8, 6, torch.tensor([3.0, 1.0]))]).requires_grad_()
    u, s, vh = truncated_svd(x, tol=0.2)
    assert (s[1, 2:] == 0).all()
    (gradient,) = torch.autograd.grad(((u * s.unsqueeze(-2)) @ vh).square().sum(), x)
    assert torch.allclose(gradient[1], 2 * x[1], atol=1e-8)


def test_iterated_triples_have_the_gradients_of_exact_ones(monkeypatch):
    monkeypatch.setattr("polyad.linalg.krylov._SLACK", 1e-14)
    x = planted(520, 530, 0.7 ** torch.arange(100, dtype=DOUBLE))
    weight = seeded(520, 530, seed=5)
    gradients = []
    for exact in (False, True):
        leaf = x.clone().requires_grad_()
        (product(leaf, 5, exact=exact) * weight).sum().backward()
        gradients.append(leaf.grad)
    assert torch.allclose(*gradients, rtol=1e-6, atol=1e-8)
    square = torch.eye(520, dtype=DOUBLE).requires_grad_()
    (product(square, 5) * weight[:, :520]).sum().backward()
    assert torch.isfinite(square.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("spectrum", [lambda k: 1 / (k + 1), lambda k: 0.8**k, lambda k: (k < 20).to(DOUBLE)])
@pytest.mark.parametrize("shape", [(530, 600), (600, 530)])
def test_iterated_triples_are_as_good_as_exact_ones(dtype, spectrum, shape):
    values = spectrum(torch.arange(530, dtype=DOUBLE))
    x = planted(*shape, values, dtype)
    u, s, vh = truncated_svd(x, 20)
    tight = 100 * torch.finfo(dtype).eps
    assert torch.allclose(s.double(), values[:20], atol=max(tight, 1e-5))
    for vectors in (u, vh.mT):
        assert torch.allclose(vectors.mT @ vectors, torch.eye(20, dtype=dtype), atol=tight)
    least = values[20:].norm()
    assert ((u * s) @ vh - x).norm() <= least * (1 + 1e-5) + tight
    assert torch.equal(u, truncated_svd(x, 20)[0])
    assert torch.allclose(left_singular(x, 20)[1], s, atol=max(tight, 1e-5))


@pytest.mark.parametrize("tol", [0.5, 0.05, 1e-3, 1e-9])
def test_iterated_tolerances_are_kept_by_the_least_rank(tol):
    values = 0.8 ** torch.arange(520, dtype=DOUBLE)
    x = planted(520, 540, values)
    found = krylov(x, None, tol, 200)
    assert found is not None
    u, s, vh, needed = found
    assert ((u * s) @ vh - x).norm() <= tol * x.norm()
    assert int(needed) == s.shape[-1]
    assert values[s.shape[-1] - 1 :].norm() > tol * values.norm()
    assert truncated_svd(x, tol=tol)[1].shape == s.shape


def test_what_needs_many_columns_is_left_to_the_exact_route():
    assert krylov(seeded(300, 300), None, 0.3, 100) is None
    assert krylov(seeded(300, 300), 80, None, 100) is None
    x = seeded(520, 520)
    assert truncated_svd(x, tol=0.3)[1].shape == truncated_svd(x, tol=0.3, exact=True)[1].shape


@pytest.mark.parametrize("rank", [3, 40])
def test_lacking_rank_does_not_stop_the_iteration(rank):
    x = torch.stack([planted(520, 530, torch.tensor([3.0, 2.0, 1.0])), torch.zeros(520, 530, dtype=DOUBLE)])
    u, s, vh = truncated_svd(x, rank)
    assert torch.allclose(s[0, :3], torch.tensor([3.0, 2, 1], dtype=DOUBLE))
    assert (s[1] == 0).all()
    assert torch.allclose((u * s.unsqueeze(-2)) @ vh, x, atol=1e-12)
    assert torch.allclose(u.mT @ u, torch.eye(rank, dtype=DOUBLE).expand(2, -1, -1), atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("shape", [(6, 8), (9, 4), (520, 530)])
def test_any_scale_will_do(dtype, shape):
    x = seeded(*shape, dtype=dtype)
    u, s, vh = truncated_svd(x, 3)
    for scale in (1e-30, 1e30):
        other, values, right = truncated_svd(x * scale, 3)
        assert torch.allclose(values / scale, s, rtol=1e-4)
        assert torch.allclose(((other * values) @ right) / scale, (u * s) @ vh, atol=1e-2)
        assert torch.allclose(left_singular(x * scale, 3)[1] / scale, s, rtol=1e-4)
    mixed = torch.stack([x * 1e-30, x, 0 * x, x * 1e30])
    assert torch.allclose(truncated_svd(mixed, 3)[1][[0, 1, 3]], torch.stack([s * 1e-30, s, s * 1e30]), rtol=1e-4)


def test_the_generator_decides():
    x = planted(520, 520, 1 / torch.arange(1, 521, dtype=DOUBLE))
    one, other = (truncated_svd(x, 4, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    assert not torch.equal(one[0], other[0])
    assert torch.allclose(one[1], other[1], atol=1e-6)


def test_low_rank_factors_of_deficient_matrices_have_finite_gradients():
    x = (seeded(6, 2) @ seeded(2, 5, seed=1)).requires_grad_()
    for matrix in (x, torch.zeros(4, 4).requires_grad_()):
        (gradient,) = torch.autograd.grad(svd(matrix, 3).to_dense().square().sum(), matrix)
        assert torch.allclose(gradient, 2 * matrix, atol=1e-6)
