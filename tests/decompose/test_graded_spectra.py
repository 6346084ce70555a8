"""Spectra that fall by many orders of magnitude: factors stay orthonormal, and the error asked for is kept."""

import itertools
import math

import pytest
import torch

from polyad.decompose import hierarchical_tucker, hooi, st_hosvd, t_svd, tt_svd
from polyad.linalg import left_singular, truncated_svd

SPECTRA = {
    "geometric": lambda k, e: 10.0 ** torch.linspace(0, e, k, dtype=torch.float64),
    "step": lambda k, e: torch.where(torch.arange(k) < k // 2, 1.0, 10.0**e).double(),
}


def basis(draw, n, k):
    return torch.linalg.qr(torch.randn(n, k, generator=draw, dtype=torch.float64)).Q


def matrix(shape, spectrum, exponent, dtype):
    draw, k = torch.Generator().manual_seed(0), min(shape)
    return ((basis(draw, shape[0], k) * SPECTRA[spectrum](k, exponent)) @ basis(draw, shape[1], k).mT).to(dtype)


def graded(shape, spectrum, exponent, dtype):
    """A tensor whose core falls along every mode, in random bases."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw, dtype=torch.float64)
    for mode, n in enumerate(shape):
        x = x.movedim(mode, -1) * SPECTRA[spectrum](n, exponent) ** (1 / len(shape))
        x = (x @ basis(draw, n, n).mT).movedim(-1, mode)
    return x.to(dtype)


def skew(q):
    q = q.double()
    return float((q.mT @ q - torch.eye(q.shape[-1]).double()).abs().max())


def error(found, x):
    return float((found.double() - x.double()).norm() / x.double().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", [-1, -4, -5.5, -7, -10])
@pytest.mark.parametrize(("shape", "spectrum"), list(itertools.product([(20, 20), (12, 200), (200, 12)], SPECTRA)))
def test_matrices(shape, spectrum, exponent, dtype):
    x, eps = matrix(shape, spectrum, exponent, dtype), torch.finfo(dtype).eps
    for rank in (1, 6, 12):
        u, _, vh = truncated_svd(x, rank)
        assert max(skew(u), skew(vh.mT)) < 16 * eps * math.sqrt(max(shape))
    for tol in (1e-2, 1e-4, 1e-6, 1e-9, 1e-12):
        if tol > 4 * eps:
            u, s, vh = truncated_svd(x, tol=tol)
            assert error((u * s).double() @ vh.double(), x) < 1.01 * tol + 8 * eps
            u = left_singular(x, tol=tol)[0].double()
            assert error(u @ (u.mT @ x.double()), x) < 1.01 * tol + 8 * eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", [-3, -6, -10])
@pytest.mark.parametrize(
    ("shape", "spectrum"), list(itertools.product([(12, 12, 12), (100, 6, 5), (5, 6, 7, 8)], SPECTRA))
)
def test_tensors(shape, spectrum, exponent, dtype):
    x, eps = graded(shape, spectrum, exponent, dtype), torch.finfo(dtype).eps
    whole = [tt_svd(x, tol=0.0), hierarchical_tucker(x, tol=0.0), st_hosvd(x, tol=0.0)]
    for tol in (1e-2, 1e-4, 1e-6, 1e-8, 1e-10):
        if tol > 8 * eps:
            tucker = [hooi(x, tol=tol), st_hosvd(x, tol=tol), st_hosvd(x, tol=tol, sequential=False)]
            others = [hierarchical_tucker(x, tol=tol), tt_svd(x, tol=tol), *[one.round(tol=tol) for one in whole]]
            if len(shape) == 3:
                others.append(t_svd(x, tol=tol))
            for found in tucker + others:
                assert error(found.to_dense(), x) < 1.01 * tol + 20 * eps
            for factor in itertools.chain(*[one.factors for one in tucker]):
                assert skew(factor) < 32 * eps * math.sqrt(max(shape))


@pytest.mark.parametrize("scale", [1e155, 1e-162, 1e300, 1.0])
@pytest.mark.parametrize("shape", [(6, 5, 4), (5, 6, 4), (40, 60, 5)])
def test_tubes_of_any_scale(shape, scale):
    draw = torch.Generator().manual_seed(0)
    rank = 2
    left, right = (torch.randn(s, generator=draw, dtype=torch.float64) for s in ((shape[0], rank), (rank, shape[1])))
    x = (left @ right).unsqueeze(-1) * torch.arange(1.0, 1 + shape[2]).double()
    for found in (t_svd(x * scale, rank), t_svd(x * scale, tol=1e-6), t_svd(x * scale, 4).round(tol=1e-6)):
        assert found.rank == rank
        assert error(found.to_dense() / scale, x) < 1e-10
