"""Pure tensor functions."""

import doctest
import importlib

import pytest
import torch

from polyad.linalg import left_singular, truncated_svd


def seeded(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("module", ["polyad.linalg.svd"])
def test_examples(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (2, 3, 7, 7), (1, 5), (5, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_truncated_svd_agrees_with_torch(shape, dtype):
    x = seeded(*shape, dtype=dtype)
    expected = torch.linalg.svd(x.double(), full_matrices=False)
    for rank in {1, min(shape[-2:])}:
        u, s, vh = truncated_svd(x, rank)
        best = (expected.U[..., :rank] * expected.S[..., None, :rank]) @ expected.Vh[..., :rank, :]
        tight = 1e3 * torch.finfo(dtype).eps
        assert u.dtype == s.dtype == vh.dtype == dtype
        assert torch.allclose(s.double(), expected.S[..., :rank], atol=tight)
        assert torch.allclose(((u * s.unsqueeze(-2)) @ vh).double(), best, atol=tight)
        eye = torch.eye(rank, dtype=dtype).expand(*shape[:-2], rank, rank)
        assert torch.allclose(u.mT @ u, eye, atol=tight)
        assert torch.allclose(vh @ vh.mT, eye, atol=tight)


def test_lost_singular_values_fall_back_to_the_full_decomposition():
    x = seeded(8, 1) @ seeded(1, 12, seed=1)
    _, s, vh = truncated_svd(x, 3)
    assert torch.allclose(vh @ vh.mT, torch.eye(3), atol=1e-5)
    assert (s[1:] < 1e-5 * s[0]).all()
    assert all(torch.isfinite(part).all() for part in truncated_svd(torch.zeros(4, 4), 2))


def test_signs_do_not_depend_on_the_inputs_sign():
    x = seeded(7, 5)
    u, _, vh = truncated_svd(x, 4)
    flipped, _, other = truncated_svd(-x, 4)
    assert (u.gather(0, u.abs().argmax(0, keepdim=True)) > 0).all()
    assert torch.allclose(u, flipped, atol=1e-5)
    assert torch.allclose(vh, -other, atol=1e-5)
    assert torch.allclose(left_singular(x, 4)[0], u, atol=1e-5)


def test_half_precision_is_computed_in_float32():
    x = seeded(6, 6).bfloat16()
    assert all(torch.equal(a, b) for a, b in zip(truncated_svd(x, 2), truncated_svd(x.float(), 2), strict=True))


@pytest.mark.parametrize("tol", [0.0, 0.1, 0.5, 0.9])
def test_tolerance_takes_the_least_rank_and_pads_the_batch(tol):
    x = torch.stack([seeded(8, 6), seeded(8, 2, seed=1) @ seeded(2, 6, seed=2)])
    u, s, vh = truncated_svd(x, tol=max(tol, 1e-5))
    kept = ((u * s.unsqueeze(-2)) @ vh - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert (kept <= max(tol, 1e-5)).all()
    full = torch.linalg.svdvals(x)
    for i in range(2):
        used = int((s[i] > 0).sum())
        assert used == 1 or full[i, used - 1 :].norm() > tol * full[i].norm()
    assert s.shape[-1] == max(int((s[i] > 0).sum()) for i in range(2))


def test_left_singular_goes_beyond_the_width():
    u, s = left_singular(seeded(5, 2), 4)
    assert torch.allclose(u.mT @ u, torch.eye(4), atol=1e-5)
    assert (s[2:] < 1e-6).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: truncated_svd(seeded(4, 5), 5), "rank=5 exceeds what a matrix of shape"),
        (lambda: left_singular(seeded(4, 5), 5), "rank=5 exceeds"),
        (lambda: truncated_svd(seeded(4, 5), 0), "rank=0 is below 1"),
        (lambda: truncated_svd(seeded(4, 5)), "exactly one of rank, tol"),
        (lambda: truncated_svd(seeded(4, 5), tol=1.0), "tol=1.0 is not a relative error"),
        (lambda: truncated_svd(seeded(4), 1), "x has 1 dimensions"),
        (lambda: truncated_svd(seeded(4, 4) / 0, 1), "infinite"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
