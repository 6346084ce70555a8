"""Own starts and fixed modes of sums of outer products."""

import pytest
import torch

from polyad.decompose import cp_als, nonnegative_cp
from polyad.formats import CP

DOUBLE = torch.float64


def drawn(shape=(6, 5, 4), rank=3, seed=0, weighted=True, dtype=DOUBLE, batch=()):
    g = torch.Generator().manual_seed(seed)
    factors = tuple(torch.randn(*batch, n, rank, generator=g, dtype=dtype).abs().to(dtype) for n in shape)
    return CP(factors, (1 + torch.rand(*batch, rank, generator=g, dtype=DOUBLE)).to(dtype) if weighted else None)


def error(fit, x):
    return float((fit.to_dense() - x).norm() / x.norm())


@pytest.mark.parametrize("decompose", [cp_als, nonnegative_cp])
@pytest.mark.parametrize("fixed", [(), (1,), (0, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("scale", [1, 1e15, 1e-15])
def test_fixed_factors_stay_and_the_others_are_fitted(decompose, fixed, dtype, scale):
    truth, start = drawn(), drawn(seed=5)
    x = (truth.to_dense() * scale).to(dtype)
    init = CP(tuple((truth if mode in fixed else start).factors[mode] for mode in range(3)), start.weights)
    fit = decompose(x, init=init, fixed=fixed, max_iter=1500, stop=1e-12)
    assert fit.dtype == dtype
    for mode in range(3):
        assert torch.equal(fit.factors[mode], init.factors[mode].to(dtype)) == (mode in fixed)
    assert error(fit, x) < (0.05 if decompose is nonnegative_cp else 1e-3)
    if decompose is nonnegative_cp:
        assert all(bool((factor >= 0).all()) for factor in fit.factors)


@pytest.mark.parametrize("decompose", [cp_als, nonnegative_cp])
def test_an_optimum_is_kept_and_all_fixed_is_the_start_itself(decompose):
    truth = drawn()
    x = truth.to_dense()
    again = decompose(x, 3, init=truth, max_iter=1)
    assert error(again, x) < 1e-7
    same = decompose(x, init=truth, fixed=(0, 1, 2))
    assert torch.equal(same.to_dense(), x)
    batch = drawn(batch=(2,))
    together = decompose(batch.to_dense(), init=batch, fixed=(0,), batch=1, max_iter=3)
    assert torch.allclose(together.to_dense(), batch.to_dense())
    assert torch.equal(together.factors[0], batch.factors[0])


def test_complex_and_masked_starts():
    truth = drawn(dtype=torch.complex128) * (1 + 2j)
    x = truth.to_dense()
    init = CP((truth.factors[0], *drawn(seed=5).factors[1:]))
    init = CP(tuple(f.to(torch.complex128) for f in init.factors))
    fit = cp_als(x, init=init, fixed=(0,), max_iter=2000, stop=1e-12)
    assert torch.equal(fit.factors[0], truth.factors[0])
    assert error(fit, x) < 1e-3
    known = drawn()
    seen = torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(1)) < 0.8
    masked = nonnegative_cp(known.to_dense().where(seen, torch.nan), init=known, mask=seen, max_iter=2)
    assert error(masked, known.to_dense()) < 1e-6


@pytest.mark.parametrize("decompose", [cp_als, nonnegative_cp])
@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"rank": 3, "fixed": (0,)}, ValueError, "keeps factors of a start, and none is given; give init, a CP"),
        ({"init": drawn(), "fixed": (3,)}, ValueError, "must name modes of shape"),
        ({"init": drawn(), "rank": 2}, ValueError, "rank=2 is not that of init, 3"),
        ({"init": drawn(), "tol": 0.1}, ValueError, "tol=0.1 was given with init"),
        ({"init": drawn((6, 5, 3))}, ValueError, "init of shape .* does not start"),
        ({"init": "svd"}, TypeError, "init is a str; give a CP"),
        ({"init": drawn() * torch.nan}, ValueError, "NaN"),
        ({"init": drawn() * 1j}, TypeError, "init has dtype torch.complex128"),
    ],
)
def test_starts_that_do_not_fit_are_refused(decompose, arguments, kind, words):
    with pytest.raises(kind, match=words):
        decompose(drawn().to_dense(), **arguments)


def test_what_does_not_go_with_a_start_is_refused():
    x = drawn().to_dense()
    with pytest.raises(ValueError, match="mask was given with init"):
        cp_als(x, init=drawn(), mask=torch.rand(6, 5, 4) < 0.9)
    with pytest.raises(ValueError, match=r"init\.factors\.1 has negative entries"):
        nonnegative_cp(x, init=CP((drawn().factors[0], -drawn().factors[1], drawn().factors[2])))
