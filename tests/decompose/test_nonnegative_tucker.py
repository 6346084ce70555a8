"""Tucker tensors without negative entries: recovery, monotone sweeps, starts, refusals."""

import itertools

import pytest
import torch

from polyad.decompose import hooi, nonnegative_tucker
from polyad.formats import Tucker

DOUBLE = torch.float64


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def planted(shape=(9, 8, 7), rank=(2, 3, 2), seed=0):
    factors = tuple(uniform(n, r, seed=seed + i) for i, (n, r) in enumerate(zip(shape, rank, strict=True)))
    return Tucker(uniform(*rank, seed=seed + 9), factors)


def error(fit, x):
    return float((fit.to_dense() - x).norm() / x.norm())


@pytest.mark.parametrize(("update", "bound"), [("hals", 0.01), ("mu", 0.03)])
@pytest.mark.parametrize("shape", [(9, 8, 7), (6, 5, 4, 3), (8, 7)])
def test_planted_tensors_are_approached_by_sweeps_that_never_rise(update, bound, shape):
    x = planted(shape, (2, 3, 2, 2)[: len(shape)]).to_dense()
    errors = []
    fit = nonnegative_tucker(
        x, (2, 3, 2, 2)[: len(shape)], update=update, stop=0, callback=lambda _s, _t, v: errors.append(v["error"])
    )
    assert error(fit, x) < bound
    assert all(bool((part >= 0).all()) for part in (fit.core, *fit.factors))
    assert all(after**2 <= before**2 + 1e-14 for before, after in itertools.pairwise(errors))
    assert abs(errors[-1] - error(fit, x)) < 1e-6
    assert all(torch.allclose(factor.norm(dim=0), torch.ones((), dtype=DOUBLE)) for factor in fit.factors)


def test_negative_entries_cost_what_clamping_costs_or_are_refused():
    x = planted().to_dense() - 0.5 * planted().to_dense().mean()
    fit = nonnegative_tucker(x, (9, 8, 7), max_iter=400, stop=0)
    assert error(fit, x) < 1.05 * float(x.clamp(max=0).norm() / x.norm()) + 0.01
    with pytest.raises(ValueError, match="negative entries, which update='mu' cannot treat"):
        nonnegative_tucker(x, 2, update="mu")


def test_one_rank_a_start_and_fixed_modes():
    truth = planted(rank=(2, 2, 2))
    x = truth.to_dense()
    assert nonnegative_tucker(x[:, :, :1], 2).rank == (2, 2, 1)
    kept = nonnegative_tucker(1e20 * x, init=truth * 1e20, max_iter=1)
    assert error(kept * 1e-20, x) < 1e-6
    start = planted(rank=(2, 2, 2), seed=50)
    init = Tucker(start.core, (start.factors[0], truth.factors[1], start.factors[2]))
    for update in ("hals", "mu"):
        fit = nonnegative_tucker(x, init=init, fixed=(1,), max_iter=500, stop=0, update=update)
        assert torch.equal(fit.factors[1], truth.factors[1])
        assert not torch.equal(fit.factors[0], init.factors[0])
        assert error(fit, x) < 0.02
    alone = nonnegative_tucker(x, init=init, fixed=(0, 1, 2), max_iter=300, stop=0)
    assert all(torch.equal(a, b) for a, b in zip(alone.factors, init.factors, strict=True))
    free = hooi(x, init=init, fixed=(0, 1, 2))
    assert error(alone, x) >= error(free, x) - 1e-9


def test_batches_are_their_members():
    x = torch.stack([planted(seed=0).to_dense(), 1e10 * planted(seed=5).to_dense()])
    init = planted(seed=40)
    both = Tucker(
        torch.stack([init.core, init.core * 1e10]), tuple(torch.stack([factor, factor]) for factor in init.factors)
    )
    together = nonnegative_tucker(x, init=both, batch=1, max_iter=20, stop=0)
    for i, factor in enumerate((1.0, 1e10)):
        alone = nonnegative_tucker(x[i], init=init * factor, max_iter=20, stop=0)
        assert torch.allclose(together.to_dense()[i], alone.to_dense())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "neither rank nor init is given"),
        ({"rank": 2, "update": "als"}, "update='als' is not known"),
        ({"rank": 2, "fixed": (0,)}, "keeps factors of a start"),
        ({"init": planted() * -1.0}, "has negative entries"),
        ({"rank": 2, "max_iter": -1}, "max_iter=-1"),
        ({"rank": 10}, "rank=10 exceeds every mode"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=words):
        nonnegative_tucker(planted().to_dense(), **arguments)
