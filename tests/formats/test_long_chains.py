"""Networks of many modes: planned in time linear in their number, and entries of any shape of index."""

import time

import pytest
import torch

from polyad.einsum.order import order
from polyad.einsum.sweep import sweep_order
from polyad.formats import CP, SymmetricCP, TensorRing, TensorTrain, Tubal, Tucker


def chain(modes, rank):
    draw = torch.Generator().manual_seed(0)
    cores = [
        torch.randn(rank, 2, rank, generator=draw, dtype=torch.float64) / (2 * rank) ** 0.5 for _ in range(modes)
    ]
    return TensorTrain((cores[0][0], *cores[1:-1], cores[-1][..., 0]))


@pytest.mark.parametrize(("modes", "rank"), [(40, 1), (40, 3), (70, 2), (30, 4)])
def test_inner_products_of_many_modes(modes, rank):
    x, y = chain(modes, rank), chain(modes, rank) * 0.5
    left = torch.ones(1, 1, dtype=torch.float64)
    for a, b in zip(x.three_way(), y.three_way(), strict=True):
        left = torch.einsum("rs,rit,siu->tu", left, a, b)
    assert torch.allclose(x.inner(y), left[0, 0])
    assert torch.allclose(x.norm().square(), x.inner(x))


def test_entries_of_many_modes():
    x = chain(50, 2)
    index = torch.randint(0, 2, (3, 50), generator=torch.Generator().manual_seed(1))
    for row, value in zip(index, x.entries(index), strict=True):
        product = x.cores[0][row[0]]
        for core, i in zip(x.cores[1:], row[1:], strict=True):
            product = torch.tensordot(product, core.select(core.ndim - 2 if core.ndim == 3 else 1, i), 1)
        assert torch.allclose(value, product)


def test_ten_thousand_modes_take_seconds():
    x = chain(10_000, 1)
    began = time.process_time()
    x.inner(x), x.norm(), (x + x).rank, x.entries(torch.zeros(1, 10_000, dtype=torch.long))
    assert time.process_time() - began < 60  # hours, and an error, before


def test_a_sweep_is_a_whole_order_and_leaves_grids_to_the_search():
    terms = [f"{a}{b}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    sizes = dict.fromkeys("abcdefghi", 3)
    pairs = sweep_order(terms, "ai", sizes)
    assert pairs is not None
    assert sorted(i for pair in pairs for i in pair) == list(range(2 * len(terms) - 2))
    bond = {}
    for i in range(6):
        for j in range(6):
            for edge in ((i, j, i + 1, j), (i, j, i, j + 1)):
                if edge[2] < 6 and edge[3] < 6:
                    bond[edge] = chr(200 + len(bond))
    grid = [
        "".join(c for edge, c in bond.items() if (i, j) in (edge[:2], edge[2:])) for i in range(6) for j in range(6)
    ]
    assert sweep_order(grid, "", dict.fromkeys(bond.values(), 4)) is None
    assert len(order(tuple(grid), "", dict.fromkeys(bond.values(), 4))) == 35


def test_rings_that_are_long():
    draw = torch.Generator().manual_seed(0)
    cores = tuple(torch.randn(2, 2, 2, generator=draw, dtype=torch.float64) / 2 for _ in range(40))
    x = TensorRing(cores)
    turn = torch.eye(4, dtype=torch.float64)
    for core in x.network()[1]:
        turn = turn @ torch.einsum("ris,tiu->rtsu", core, core).reshape(4, 4)
    assert torch.allclose(x.inner(x), turn.trace())


@pytest.mark.parametrize("kind", [CP, SymmetricCP, TensorTrain, Tubal, Tucker])
def test_one_entry_is_a_number(kind):
    x = kind.random((4, 4, 4), generator=torch.Generator().manual_seed(0))
    value = x.entries(torch.tensor([1, 2, 3]))
    assert value.shape == ()
    assert torch.allclose(value, x.to_dense()[1, 2, 3], atol=1e-6)
    assert x.entries(torch.tensor([[[1, 2, 3]]])).shape == (1, 1)
    with pytest.raises(TypeError, match="is no tensor; give"):
        x.entries([1, 2, 3])
    for index in (torch.tensor([True, False, True]), torch.tensor([1, 2]), torch.tensor(1), torch.ones(3)):
        with pytest.raises(ValueError, match="must hold 3 integers an entry"):
            x.entries(index)
