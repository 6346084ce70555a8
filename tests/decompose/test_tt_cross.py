"""Cross approximation of functions, and rows of large volume."""

import warnings

import pytest
import torch

from polyad.algorithms import maxvol
from polyad.decompose import tt_cross
from polyad.decompose.trains._evaluations import Evaluations

F64 = torch.float64


def grid(index, n=16):
    return index.double() / (n - 1)


def reciprocal(index):
    return 1 / (1 + grid(index).sum(1))


def root(index):
    return grid(index).square().sum(1).sqrt()


def sine(index):
    return torch.sin(grid(index).sum(1))


def random_error(found, function, shape, seed=7):
    generator = torch.Generator().manual_seed(seed)
    index = torch.stack([torch.randint(0, n, (4000,), generator=generator) for n in shape], 1)
    truth = function(index)
    return float((found.entries(index) - truth).norm() / truth.norm())


@pytest.mark.parametrize("function", [reciprocal, root, sine])
def test_functions_are_found_to_the_tolerance_from_few_values(function):
    asked, seen = [], []

    def counted(index):
        asked.append(index)
        return function(index)

    found = tt_cross(counted, (16,) * 6, tol=1e-6, callback=lambda sweep, total, values: seen.append((sweep, values)))
    assert random_error(found, function, (16,) * 6) < 1e-6
    everything = torch.cat(asked)
    assert len(everything.unique(dim=0)) == len(everything) == seen[-1][1]["evaluations"] < 40_000
    assert [sweep for sweep, _ in seen] == list(range(len(seen)))
    assert seen[-1][1]["error"] < 1e-6
    again = tt_cross(function, (16,) * 6, tol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(found.cores, again.cores, strict=True))


def test_ranks_are_those_of_the_function():
    found = tt_cross(sine, (16,) * 5, tol=1e-8)
    assert max(found.round(tol=1e-8).rank) == 2
    assert tt_cross(lambda index: torch.zeros(len(index)), (4, 5, 6)).norm() == 0
    assert tt_cross(lambda index: torch.full((len(index),), 3.0), (4, 5)).dtype == torch.float32
    line = tt_cross(lambda index: index[:, 0].double(), (9,))
    assert torch.equal(line.to_dense(), torch.arange(9.0, dtype=F64))


def test_shapes_beyond_64_bits_and_modes_of_one():
    shape = (16, 1, *[16] * 20)
    found = tt_cross(sine, shape, tol=1e-6)
    assert found.shape == shape
    assert random_error(found, sine, shape) < 1e-6


def test_limits_are_kept_and_said():
    with pytest.warns(UserWarning, match="evaluations at an error of"):
        few = tt_cross(root, (16,) * 6, tol=1e-9, max_evaluations=6000)
    with pytest.warns(UserWarning, match="raise rank"):
        low = tt_cross(root, (16,) * 6, rank=3, tol=1e-9, max_iter=4)
    assert max(low.rank) <= 3
    assert random_error(few, root, (16,) * 6) < 0.1
    with pytest.raises(ValueError, match="max_evaluations=10 is too few"):
        tt_cross(root, (16,) * 6, max_evaluations=10)
    with pytest.raises(ValueError, match="too few for one sweep"):
        tt_cross(root, (16,) * 6, max_evaluations=1100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tt_cross(sine, (16,) * 4, tol=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tt_cross(lambda index: index.double(), (4, 5)), r"it must give \(N,\) numbers"),
        (lambda: tt_cross(lambda index: 1 / index[:, 0].double(), (4, 5)), "infinite numbers"),
        (lambda: tt_cross(sine, (4, 0)), "at least one mode"),
        (lambda: tt_cross(sine, (4, 5), rank=0), "rank=0 is below 1"),
        (lambda: tt_cross(sine, (4, 5), tol=3), "not a relative error"),
        (lambda: maxvol(torch.ones(2, 3)), "fewer rows than columns"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_entries_are_asked_once():
    sizes = []
    ask = Evaluations(lambda index: sizes.append(len(index)) or index.sum(1).double(), (5, 5), None, F64)
    twice = torch.tensor([[1, 2], [1, 2], [0, 4]])
    assert ask(twice).tolist() == [3, 3, 4]
    assert ask(twice[:1]).tolist() == [3]
    assert (sizes, ask.count) == ([2], 2)


@pytest.mark.parametrize("extra", [0, 3])
def test_maxvol_interpolates_with_small_coefficients(extra):
    u = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    rows, c = maxvol(u, extra)
    assert len(rows.unique()) == 5 + extra
    assert torch.allclose(c @ u[rows], u)
    assert float(c.abs().max()) <= 1.05
    best = torch.linalg.svdvals(u[rows])[-1]
    others = torch.stack([torch.linalg.svdvals(u[i : i + 5])[-1] for i in range(50)])
    assert bool((best > others).all())
