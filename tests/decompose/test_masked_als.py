"""Alternating least squares with missing entries: low rank, Kronecker, Khatri-Rao and Hadamard forms."""

import itertools

import pytest
import torch

from polyad.decompose import hadamard_als, khatri_rao_als, kronecker_als, masked_als
from polyad.formats import Hadamard, KhatriRao, Kronecker, LowRank

METHODS = {
    "masked_als": (masked_als, {}),
    "kronecker_als": (kronecker_als, {}),
    "khatri_rao_als": (khatri_rao_als, {}),
    "hadamard_als": (hadamard_als, {"starts": 2}),
}
every = pytest.mark.parametrize(("find", "given"), METHODS.values(), ids=list(METHODS))


def seeded(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seen(shape, share, seed=5):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def error(found, x):
    return float((found.to_dense().double() - x).norm() / x.double().norm())


PLANTED = {
    "low_rank": (LowRank(seeded(2, 40, 3), seeded(2, 3, 30, seed=1)), masked_als, 3, {}, 0.5),
    "kronecker": (
        Kronecker(seeded(2, 4, 5), seeded(2, 6, 5, seed=1)), kronecker_als, 2, {"shape_of_first": (4, 5)}, 0.5,
    ),
    "khatri_rao": (KhatriRao(seeded(1, 8, 5), seeded(1, 9, 5, seed=1)), khatri_rao_als, 1, {"rows_of_first": 8}, 0.7),
    "hadamard": (
        Hadamard((seeded(40, 2), seeded(40, 2, seed=1)), (seeded(2, 30, seed=2), seeded(2, 30, seed=3))),
        hadamard_als, 2, {"starts": 8}, 0.8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PLANTED)
def test_planted_structure_is_found_where_entries_are_missing(name, dtype):
    planted, find, rank, given, share = PLANTED[name]
    x = planted.to(dtype).to_dense()
    mask = seen(x.shape, share)
    found = find(x.where(mask, torch.nan), rank, mask=mask, **given)
    assert (type(found), found.dtype, found.shape) == (type(planted), dtype, planted.shape)
    assert error(found, x) < (1e-4 if dtype == torch.float32 else 1e-8)


@every
def test_errors_only_fall_and_scale_and_seed_carry_over(find, given):
    x = seeded(12, 9)
    mask = seen(x.shape, 0.8)
    errors = []
    found = find(x, 1, mask=mask, callback=lambda _sweep, _of, said: errors.append(said["error"]), stop=0.0, **given)
    assert len(errors) > 3
    assert all(later <= earlier * (1 + 1e-9) + 1e-14 for earlier, later in itertools.pairwise(errors))
    dense = found.to_dense()
    here = float((dense - x)[mask].norm() / x[mask].norm())
    assert here == pytest.approx(errors[-1], rel=1e-9) or (
        find is khatri_rao_als and here < errors[-1]
    )  # worst column
    for scale in (1e-30, 1e30):
        assert torch.allclose(find(scale * x, 1, mask=mask, stop=0.0, **given).to_dense() / scale, dense, atol=1e-6)
    assert torch.equal(find(x, 1, mask=mask, stop=0.0, **given).to_dense(), dense)


@every
def test_bad_and_degenerate_input(find, given):
    assert not find(torch.zeros(4, 4), 1, **given).to_dense().any()
    none = torch.zeros(4, 4, dtype=torch.bool)
    assert find(seeded(4, 4), 1, mask=none, **given).to_dense().isfinite().all()
    assert error(find(torch.full((4, 6), 3.0), 2, **given), torch.full((4, 6), 3.0)) < 1e-5
    assert find(seeded(1, 6), 1, **given).shape == (1, 6)
    row = seeded(6, 4) @ seeded(4, 4, seed=1)
    mask = seen(row.shape, 0.9)
    mask[2] = False
    assert find(row.where(mask, torch.inf), 1, mask=mask, **given).to_dense().isfinite().all()
    strided = seeded(4, 12).mT.requires_grad_()
    assert not find(strided, 1, **given).to_dense().requires_grad
    half = find(seeded(6, 8).bfloat16(), 1, **given)
    assert half.dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"dtype torch\.int64"):
        find(torch.ones(4, 4, dtype=torch.int64), 1, **given)
    for call, sentence in (
        (lambda: find(seeded(4, 4), 17, **given), "rank.*=17 exceeds"),
        (lambda: find(seeded(4, 4), 1, mask=torch.ones(4, 4), **given), "must hold bools"),
        (lambda: find(seeded(4, 4), 1, ridge=-1.0, **given), "ridge=-1.0 is negative"),
        (lambda: find(seeded(4, 4) / 0, 1, **given), "infinite"),
        (lambda: find(seeded(4), 1, **given), "x has 1 dimensions"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()


def test_without_a_mask_the_start_is_the_answer():
    x = seeded(3, 8, 6)
    tail = torch.linalg.svdvals(x)[:, 2:].norm() / x.norm()
    assert error(masked_als(x, 2), x) == pytest.approx(float(tail), rel=1e-9)
    columns = x.mT.unflatten(-1, (2, 4))
    assert error(khatri_rao_als(x, 1), x) == pytest.approx(
        float(torch.linalg.svdvals(columns)[..., 1:].norm() / x.norm()), rel=1e-9
    )


def test_a_batch_is_its_members():
    x = seeded(2, 10, 8)
    mask = seen(x.shape, 0.7)
    for find, given in ((masked_als, {}), (kronecker_als, {}), (khatri_rao_als, {})):
        both = find(x, 1, mask=mask, max_iter=20, stop=0.0, **given).to_dense()
        for i in range(2):
            assert torch.allclose(both[i], find(x[i], 1, mask=mask[i], max_iter=20, stop=0.0, **given).to_dense())
    assert hadamard_als(x, (1, 2), mask=mask, starts=2).shape == (2, 10, 8)


def test_a_ridge_shrinks_and_an_unseen_row_stays_at_zero():
    x = seeded(10, 8)
    mask = seen(x.shape, 0.8)
    mask[3] = False
    plain, shrunk = masked_als(x, 3, mask=mask), masked_als(x, 3, mask=mask, ridge=2.0)
    assert shrunk.norm() < plain.norm()
    assert plain.to_dense()[3].norm() < 1e-12
    assert torch.allclose(masked_als(5 * x, 3, mask=mask, ridge=2.0).to_dense(), 5 * shrunk.to_dense(), rtol=1e-6)


def test_hadamard_products_reach_beyond_the_svd_of_equal_size():
    planted = Hadamard((seeded(30, 3), seeded(30, 3, seed=1)), (seeded(3, 25, seed=2), seeded(3, 25, seed=3)))
    x = planted.to_dense()
    found = hadamard_als(x, 3)
    values = torch.linalg.svdvals(x)
    assert found.parameters == 6 * (30 + 25)
    assert error(found, x) < 0.9 * float(values[6:].norm() / values.norm())
    assert torch.linalg.matrix_rank(found.low_rank().to_dense()) == 9
    with pytest.raises(ValueError, match="starts=0"):
        hadamard_als(x, 2, starts=0)
