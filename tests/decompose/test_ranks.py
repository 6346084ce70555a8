"""Ranks from spectra, and core shapes from budgets."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.decompose import core_shapes, st_hosvd
from polyad.decompose.ranks.choose_rank import by_budget, by_elbow, by_energy, by_tolerance
from polyad.decompose.ranks.spectra import mode_spectra


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stored(ranks, shape):
    return math.prod(ranks) + sum(r * n for r, n in zip(ranks, shape, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.floats(0, 1), st.integers(0, 99), st.floats(0.2, 1))
def test_core_shapes_are_those_of_brute_force(shape, share, seed, decay):
    x = seeded(*shape, seed=seed)
    for mode, n in enumerate(shape):
        x = x * (decay ** torch.arange(n)).reshape(-1, *[1] * (len(shape) - 1 - mode))
    least = stored([1] * len(shape), shape)
    budget = round(least + share * (stored(shape, shape) - least))
    spectra = mode_spectra(x)

    def kept(ranks):
        return sum(float(s[:r].sum()) for s, r in zip(spectra, ranks, strict=True))

    fitting = [r for r in itertools.product(*(range(1, n + 1) for n in shape)) if stored(r, shape) <= budget]
    found = core_shapes(x, budget)
    assert found in fitting
    assert kept(found) == pytest.approx(max(map(kept, fitting)), abs=1e-10)


def test_a_large_budget_keeps_all_and_a_small_one_little():
    x = seeded(5, 6, 7)
    assert core_shapes(x, 10_000) == (5, 6, 7)
    assert core_shapes(x, 19) == (1, 1, 1)
    assert st_hosvd(x, core_shapes(x, 100)).parameters <= 100
    assert (
        core_shapes(torch.zeros(3, 4, 5), 30) == (1, 1, 1)
        or stored(core_shapes(torch.zeros(3, 4, 5), 30), (3, 4, 5)) <= 30
    )
    with pytest.raises(ValueError, match="budget=18 does not hold ranks of one, which store 19"):
        core_shapes(x, 18)


def test_four_modes_of_some_size_are_searched_in_time():
    x = seeded(24, 25, 26, 27)
    for mode in range(4):
        x = x * (1 / torch.arange(1, x.shape[mode] + 1)).reshape(-1, *[1] * (3 - mode))
    ranks = core_shapes(x, 4000)
    assert stored(ranks, x.shape) <= 4000
    assert all(r > 1 for r in ranks)


def test_rules_read_a_spectrum():
    s = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert [by_tolerance(s, tol) for tol in (0.99, 0.8, 0.5, 0.0)] == [1, 1, 3, 4]
    assert [by_energy(s, share) for share in (0.1, 0.4, 0.7, 1.0)] == [1, 1, 2, 4]
    assert by_elbow(torch.cat((torch.full((5,), 2.0), torch.full((9,), 1e-9)))) == 5
    assert by_elbow(0.5 ** torch.arange(9)) == 1
    assert by_elbow(torch.zeros(4)) == by_elbow(torch.ones(2)) == by_elbow(torch.ones(7)) == 1
    assert by_budget(s, 70, 20) == 3
    for call in (lambda: by_budget(s, 3, 4), lambda: by_elbow(torch.ones(2, 2)), lambda: by_energy(s, 0.0)):
        with pytest.raises(ValueError, match=r"budget=3|spectrum has shape|share=0.0"):
            call()


def test_spectra_are_those_of_the_unfoldings_at_any_scale():
    x = seeded(4, 5, 3)
    for mode, s in enumerate(mode_spectra(x * 1e-200)):
        expected = torch.linalg.svdvals(x.movedim(mode, 0).flatten(1)).square() / x.square().sum()
        assert torch.allclose(s, expected)
