"""Own starts, fixed modes and one rank for all modes of Tucker decompositions."""

import pytest
import torch

from polyad.decompose import block_term, hooi, st_hosvd
from polyad.formats import Tucker

DOUBLE = torch.float64


def seeded(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def start(shape, rank, seed=7, batch=()):
    factors = tuple(seeded(*batch, n, r, seed=seed + i) for i, (n, r) in enumerate(zip(shape, rank, strict=True)))
    return Tucker(seeded(*batch, *rank, seed=seed + 9), factors)


def error(fit, x):
    return float((fit.to_dense() - x).norm() / x.norm())


@pytest.mark.parametrize("decompose", [hooi, st_hosvd])
def test_one_rank_stands_for_every_mode_and_is_cut_to_short_ones(decompose):
    x = seeded(6, 5, 2)
    assert decompose(x, 3).rank == (3, 3, 2)
    assert torch.equal(decompose(x, 3).to_dense(), decompose(x, (3, 3, 2)).to_dense())
    for wrong in (7, 0, -1):
        with pytest.raises(ValueError, match=f"rank={wrong} "):
            decompose(x, wrong)
    with pytest.raises(ValueError, match="rank=True must give one number"):
        decompose(x, True)


def test_one_rank_rounds_and_makes_block_terms():
    x = Tucker.random((6, 5, 4), generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    assert x.round(2).rank == (2, 2, 2)
    assert torch.equal(block_term(seeded(4, 4, 3), 2).to_dense(), block_term(seeded(4, 4, 3), (2, 2, 2)).to_dense())


@pytest.mark.parametrize("fixed", [(), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("scale", [1, 1e20, 1e-20])
def test_fixed_factors_stay_and_the_core_is_the_best_for_them(fixed, dtype, scale):
    x, init = seeded(6, 5, 4, dtype=dtype) * scale, start((6, 5, 4), (2, 3, 2))
    fit = hooi(x, init=init, fixed=fixed, max_iter=3)
    for mode in range(3):
        same = torch.equal(fit.factors[mode], init.factors[mode].to(dtype))
        assert same == (mode in fixed)
    assert fit.dtype == dtype
    core = x / scale
    for factor in fit.factors:  # the core by least squares, mode after mode
        core = torch.tensordot(core, torch.linalg.pinv(factor), ([0], [1]))
    assert torch.allclose(fit.core / scale, core, rtol=0, atol=1e4 * torch.finfo(dtype).eps)


def test_a_start_is_used_and_its_own_optimum_is_kept():
    x, init = seeded(7, 6, 5), start((7, 6, 5), (2, 2, 2))
    best = hooi(x, 2, max_iter=500, stop=1e-15)
    again = hooi(x, init=best, max_iter=1)
    assert abs(error(again, x) - error(best, x)) < 1e-9
    projected = hooi(x, init=init, max_iter=0)
    assert error(projected, x) > error(hooi(x, init=init, max_iter=1), x) > error(best, x) - 1e-9
    spans = [torch.linalg.qr(factor).Q for factor in init.factors]
    dense = x
    for q in spans:
        dense = torch.tensordot(dense, q @ q.mT, ([0], [1]))
    assert torch.allclose(projected.to_dense(), dense)
    planted = start((7, 6, 5), (2, 2, 2), seed=30)
    assert error(hooi(planted.to_dense(), (2, 2, 2), init=init), planted.to_dense()) < 1e-7


def test_dependent_columns_that_stay_and_more_of_them_than_rows():
    x, init = seeded(4, 5, 6), start((4, 5, 6), (6, 2, 3))
    first = init.factors[0].clone()
    first[:, 1:] = first[:, :1]
    for factor, rows in ((first, 1), (init.factors[0], 4)):
        fit = hooi(x, init=Tucker(init.core, (factor, *init.factors[1:])), fixed=(0,))
        assert torch.equal(fit.factors[0], factor)
        span = torch.linalg.svd(factor)[0][:, :rows]
        free = hooi(torch.tensordot(span, x, ([0], [0])), (rows, 2, 3), max_iter=200).to_dense()
        assert abs(error(fit, x) - float((torch.tensordot(span, free, 1) - x).norm() / x.norm())) < 1e-3


def test_starts_of_batches_and_under_masks():
    batch = seeded(2, 6, 5, 4)
    init = start((6, 5, 4), (2, 2, 2), batch=(2,))
    together = hooi(batch, init=init, fixed=(1,), batch=1, max_iter=2)
    members = [Tucker(init.core[i], tuple(factor[i] for factor in init.factors)) for i in range(2)]
    for i, member in enumerate(members):
        alone = hooi(batch[i], init=member, fixed=(1,), max_iter=2)
        assert torch.allclose(together.to_dense()[i], alone.to_dense())
    planted = start((6, 5, 4), (2, 2, 2), seed=20)
    x, seen = planted.to_dense(), torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(3)) < 0.8
    known = Tucker(members[0].core, (members[0].factors[0], planted.factors[1], members[0].factors[2]))
    fit = hooi(x.where(seen, torch.nan), init=known, fixed=(1,), mask=seen, max_iter=500, stop=0)
    assert torch.equal(fit.factors[1], planted.factors[1])
    assert error(fit, x) < 1e-4
    kept = hooi(x.where(seen, torch.nan), init=planted, mask=seen, max_iter=0)
    assert error(kept, x) < 1e-12


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"fixed": (0,)}, ValueError, "fixed=.* keeps factors of a start, and none is given"),
        ({"init": "good", "fixed": (3,)}, ValueError, "fixed=.* must name modes of shape .* from 0 to 2"),
        ({"init": "good", "fixed": (-1,)}, ValueError, "must name modes"),
        ({"init": "good", "rank": (3, 3, 3)}, ValueError, "is not that of init"),
        ({"init": "good", "rank": None, "tol": 0.1}, ValueError, "tol=0.1 was given with init"),
        ({"init": "random"}, TypeError, "init is a str; give a Tucker"),
        ({"init": start((6, 5, 3), (2, 2, 2))}, ValueError, "init of shape .* does not start"),
        ({"init": start((6, 5, 4), (2, 2, 5)), "rank": None}, ValueError, r"init.rank\[2\]=5 exceeds mode 2"),
        ({"init": start((6, 5, 4), (2, 2, 2)) * 1j}, TypeError, "init has dtype torch.complex128"),
        ({"init": start((6, 5, 4), (2, 2, 2)) * torch.nan}, ValueError, "holds .* NaN"),
    ],
)
def test_starts_that_do_not_fit_are_refused(arguments, kind, words):
    init = start((6, 5, 4), (2, 2, 2))
    arguments = {"rank": (2, 2, 2)} | {k: init if v == "good" else v for k, v in arguments.items()}
    with pytest.raises(kind, match=words):
        hooi(seeded(6, 5, 4), **arguments)
