"""The terms of a sum of outer products: lengths, signs, order, and the match with another sum."""

import itertools

import pytest
import torch

from polyad.formats import CP
from polyad.formats.networks.assignment import best_assignment


def drawn(shape=(6, 5, 4), rank=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return CP(
        tuple(torch.randn(n, rank, generator=g, dtype=dtype) for n in shape),
        torch.randn(rank, generator=g, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("weighted", [True, False])
def test_normalize_keeps_the_sum_and_settles_lengths_and_signs(dtype, weighted):
    x = drawn(dtype=dtype)
    x = x if weighted else CP(x.factors)
    unit = x.normalize()
    eps = torch.finfo(dtype).eps
    assert unit.dtype == dtype
    assert torch.allclose(unit.to_dense(), x.to_dense(), rtol=0, atol=100 * eps)
    for place, factor in enumerate(unit.factors):
        assert torch.allclose(factor.norm(dim=0), torch.ones(3, dtype=unit.weights.real.dtype), atol=10 * eps)
        top = factor.gather(0, factor.abs().argmax(0, keepdim=True))
        if place < 2:
            assert bool((top.real > 0).all())
            assert bool((top.imag.abs() < 10 * eps).all() if dtype.is_complex else True)
    assert bool((unit.weights.real >= 0).all())
    assert unit.weights.is_complex() == dtype.is_complex


def test_normalize_of_zero_terms_batches_and_lengths_beyond_the_dtype():
    x = CP((torch.tensor([[0.0, 3.0], [0.0, 4.0]]), torch.ones(3, 2)))
    unit = x.normalize()
    assert torch.equal(unit.weights[:1], torch.zeros(1))
    assert torch.equal(unit.factors[0][:, 0], torch.tensor([1.0, 0.0]))
    long = CP(tuple(torch.full((3, 1), value) for value in (1e30, 1e30, 1e-30)))
    assert torch.allclose(long.normalize().weights, torch.tensor([1e30 * 3**1.5]))
    both = CP(tuple(torch.stack([f, 2 * f]) for f in drawn().factors)).normalize()
    assert both.weights.shape == (2, 3)
    assert torch.allclose(both.weights[1], 8 * both.weights[0])
    assert torch.autograd.gradcheck(
        lambda a, b: CP((a, b)).normalize().to_dense(), tuple(f.requires_grad_() for f in drawn((3, 2)).factors)
    )


def test_align_finds_the_order_and_says_the_congruences():
    x = drawn(rank=5)
    noise = drawn(rank=5, seed=9)
    near = CP(tuple(a + 1e-3 * b for a, b in zip(x.factors, noise.factors, strict=True)), x.weights)
    order = torch.tensor([3, 0, 4, 1, 2])
    again, congruences = near.permute(order).align(x)
    assert all(torch.equal(a, b) for a, b in zip(again.factors, near.factors, strict=True))
    assert torch.equal(again.weights, near.weights)
    assert torch.allclose(again.to_dense(), near.to_dense())
    assert bool((congruences > 0.9999).all())
    assert bool((congruences < 1).all())
    flipped = CP((-2 * x.factors[0], *x.factors[1:]))
    assert torch.allclose(flipped.align(x)[1], torch.ones(5, dtype=torch.float64))
    cosines = [(a / a.norm(dim=0)).mT @ (b / b.norm(dim=0)) for a, b in zip(x.factors, noise.factors, strict=True)]
    assert torch.allclose(x.congruence(noise), (cosines[0] * cosines[1] * cosines[2]).abs())


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_assignments_are_the_best_of_all(n):
    for seed in range(8):
        scores = torch.rand(n, n, generator=torch.Generator().manual_seed(seed))
        scores = scores.round(decimals=1) if seed % 2 else scores
        best = max(sum(float(scores[i, j]) for i, j in enumerate(p)) for p in itertools.permutations(range(n)))
        chosen = best_assignment(scores)
        assert sorted(chosen.tolist()) == list(range(n))
        assert abs(float(scores[torch.arange(n), chosen].sum()) - best) < 1e-6


def test_refusals():
    x = drawn()
    with pytest.raises(ValueError, match="must name each of the 3 terms once"):
        x.permute((0, 0, 1))
    with pytest.raises(ValueError, match="have no terms to compare"):
        x.align(drawn((6, 5, 3)))
    with pytest.raises(ValueError, match="of equal ranks"):
        x.align(drawn(rank=2))
    with pytest.raises(TypeError, match="a CP is needed"):
        x.align(x.to_dense())
