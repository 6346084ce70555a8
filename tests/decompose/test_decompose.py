"""From a tensor to a format."""

import doctest
import importlib
import itertools

import pytest
import torch

from polyad.decompose import hooi, svd
from polyad.formats import LowRank, Tucker


def seeded(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def error(format, x):
    return float((format.to_dense() - x).norm() / x.norm())


@pytest.mark.parametrize("name", ["svd", "hooi"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"polyad.decompose.{name}")).failed == 0


def test_svd_is_the_best_of_its_rank():
    x = seeded(3, 7, 9)
    format = svd(x, 4)
    assert isinstance(format, LowRank)
    tail = torch.linalg.svdvals(x)[:, 4:].norm(dim=-1)
    assert torch.allclose((format.to_dense() - x).flatten(1).norm(dim=1), tail, rtol=1e-5)
    assert torch.allclose(format.left.norm(), format.right.norm())
    assert svd(x.bfloat16(), 4).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 6), (6, 5, 4), (4, 3, 5, 4)])
def test_hooi_recovers_planted_structure(shape, dtype):
    planted = Tucker.random(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    found = hooi(planted.to_dense(), planted.rank)
    assert error(found, planted.to_dense()) < 100 * torch.finfo(dtype).eps
    assert hooi(planted.to_dense(), tol=1e-3).rank == planted.rank
    assert found.core.dtype == dtype
    for factor in found.factors:
        assert torch.allclose(factor.mT @ factor, torch.eye(factor.shape[1], dtype=dtype), atol=1e-5)


def test_sweeps_only_lower_the_error_and_beat_the_start():
    x = seeded(7, 8, 9)
    seen = []
    found = hooi(x, (3, 3, 3), stop=1e-6, callback=lambda sweep, total, values: seen.append((sweep, total, values)))
    errors = [values["error"] for _, _, values in seen]
    assert [sweep for sweep, _, _ in seen] == list(range(len(seen)))
    assert seen[0][1] == 50
    assert 3 < len(seen) < 50
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(errors))
    assert errors[-1] == pytest.approx(error(found, x), abs=1e-5)
    assert error(found, x) < error(hooi(x, (3, 3, 3), max_iter=0), x) - 1e-3


@pytest.mark.parametrize("tol", [0.05, 0.3, 0.7])
def test_hooi_keeps_the_tolerance(tol):
    decay = 0.6 ** torch.arange(8)
    x = seeded(8, 8, 8) * decay[:, None, None] * decay[:, None] * decay
    assert error(hooi(x, tol=tol, max_iter=0), x) <= tol
    found = hooi(x, tol=tol)
    assert error(found, x) <= tol
    assert found.parameters < x.numel()


def test_full_ranks_are_exact_and_zeros_stay_zero():
    x = seeded(3, 4, 5)
    assert error(hooi(x, (3, 4, 5)), x) < 1e-6
    assert not hooi(torch.zeros(3, 4, 5), (2, 2, 2)).to_dense().any()
    assert hooi(torch.zeros(3, 4, 5), tol=0.1).rank == (1, 1, 1)


def test_scale_and_layout_carry_over():
    x = seeded(5, 6, 7, dtype=torch.float64)
    one = hooi(x, (2, 3, 4)).to_dense()
    assert torch.allclose(hooi(1e-4 * x, (2, 3, 4)).to_dense(), 1e-4 * one, atol=1e-9)
    turned = hooi(x.permute(2, 0, 1), (4, 2, 3), max_iter=200, stop=1e-14).to_dense().permute(1, 2, 0)
    assert torch.allclose(turned, hooi(x, (2, 3, 4), max_iter=200, stop=1e-14).to_dense(), atol=1e-3)
    half = hooi(x.bfloat16(), (2, 3, 4))
    assert half.dtype == torch.bfloat16
    assert error(half, x) < error(hooi(x, (2, 3, 4)), x) + 0.02


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: hooi(seeded(5, 6, 4), (2, 9, 4)), r"rank\[1\]=9 exceeds mode 1 of shape \(5, 6, 4\)"),
        (lambda: hooi(seeded(5, 6, 4), (2, 0, 4)), r"rank\[1\]=0 is below 1"),
        (lambda: hooi(seeded(5, 6, 4), (2, 2)), "one number for each of the 3 modes"),
        (lambda: hooi(seeded(5, 6, 4)), "exactly one of rank, tol"),
        (lambda: hooi(seeded(5, 6, 4), tol=-0.1), "tol=-0.1 is not a relative error"),
        (lambda: hooi(seeded(5, 6, 4) * float("nan"), (1, 1, 1)), "120 NaN"),
        (lambda: svd(seeded(5, 6), 6), "rank=6 exceeds"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
