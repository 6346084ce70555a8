"""Graphs and ranks of tensor networks that are found from the tensor."""

import itertools

import pytest
import torch

from polyad.decompose import (
    Structure,
    choose_rank,
    core_shapes,
    greedy_tn,
    grow_network,
    hierarchical_tucker,
    local_enumeration,
    st_hosvd,
    tnale,
    tt_svd,
)  # fmt: skip
from polyad.decompose.networks._moves import grow_edge, node_merges, node_splits, shrink_edge
from polyad.decompose.networks.sweeps import random_network, refine_network
from polyad.formats import Network


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(expression, seed=0, n=5, **ranks):
    return random_network(expression, ranks | dict.fromkeys(expression.split("->")[1], n), seeded(seed))


def error(found, x):
    return float((found.to_dense() - x).norm() / x.norm())


TRAIN = ("ax,bxy,cyz,dz->abcd", {"x": 2, "y": 3, "z": 2})
RING = ("apq,bqr,crs,dsp->abcd", {"p": 2, "q": 2, "r": 3, "s": 2})
TUCKER = ("pqr,ap,bq,cr->abc", dict.fromkeys("pqr", 2))


@pytest.mark.parametrize(("expression", "ranks"), [TRAIN, RING, TUCKER])
def test_planted_networks_are_found_with_no_more_numbers(expression, ranks):
    target = planted(expression, **ranks)
    x = target.to_dense()
    found = greedy_tn(x, tol=1e-4)
    assert error(found, x) <= 1e-4
    assert found.parameters <= target.parameters
    assert sorted(found.rank.values()) == sorted(ranks.values())


def test_edges_of_one_are_not_there_and_budgets_hold():
    x = torch.ones(3, 4, 5)
    assert greedy_tn(x, tol=1e-3).expression == "a,b,c->abc"
    noise = torch.randn(6, 6, 6, generator=seeded())
    last = 1.0
    for budget in (18, 40, 70, 100):
        found = greedy_tn(noise, budget=budget)
        assert found.parameters <= budget
        assert error(found, noise) <= last + 1e-6
        last = error(found, noise)
    assert last < 0.8
    assert max(greedy_tn(noise, 2).rank.values()) <= 2
    for bad in ({}, {"budget": 17}, {"rank": 0}):
        with pytest.raises(ValueError, match=r"nothing bounds|budget=17|rank=0"):
            greedy_tn(noise, **bad)


def test_any_loss_grows_a_network_completion_and_a_layer():
    x = planted("ap,bp->ab", p=2).to_dense().float()
    seen = torch.ones(5, 5, dtype=torch.bool)
    seen[0, 1] = seen[3, 4] = False
    found = grow_network(lambda m: (m.to_dense() - x)[seen].square().sum(), (5, 5), budget=20, max_iter=60)
    assert found.parameters == 20
    assert error(found, x) < 0.01
    inputs = torch.randn(16, 6, generator=seeded(2))
    weight = torch.kron(torch.randn(3, 3, generator=seeded(3)), torch.randn(2, 2, generator=seeded(4)))
    wanted = inputs @ weight.mT

    def loss(m):
        return (m.linear(inputs) - wanted).square().mean()

    layer = grow_network(loss, ((3, 2), (3, 2)), target=1e-6, budget=24, max_iter=60)
    assert layer.shape == (6, 6)
    assert layer.parameters <= 24
    assert float(loss(layer)) <= 1e-6


def test_moves_keep_the_tensor():
    network = planted(*RING[:1], **RING[1])
    x = network.to_dense()
    assert all(error(grow_edge(network, pair, seeded()), x) < 1e-12 for pair in itertools.combinations(range(4), 2))
    assert all(error(one, x) < 1e-12 for one in node_merges(network, 1000))
    assert len(list(node_merges(network, 1000))) == 4
    wide = grow_edge(network, (0, 1), seeded())
    (bond,) = [c for c, r in wide.rank.items() if r == 3 and c == "q"]
    assert error(shrink_edge(wide, bond), x) < 1e-12
    node = Network("apq,pb,qc->abc", (torch.outer(torch.arange(1.0, 6), torch.ones(4)).view(5, 2, 2).double(),
                                      torch.randn(2, 5, generator=seeded()).double(),
                                      torch.randn(2, 5, generator=seeded()).double()))  # fmt: skip
    one = next(node_splits(node, 1e-6))
    assert error(one, node.to_dense()) < 1e-12
    assert one.parameters < node.parameters


def test_no_sweep_raises_the_error():
    x = torch.randn(4, 5, 6, generator=seeded(), dtype=torch.float64)
    errors = []
    refine_network(
        x / x.norm(),
        random_network("axy,byz,czx->abc", dict(zip("abcxyz", (4, 5, 6, 2, 2, 2), strict=True)), seeded()),
        max_iter=20,
        after=lambda _, e: errors.append(e),
    )
    assert len(errors) == 20
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(errors))


def test_a_hidden_order_is_found():
    x = planted("apq,brs,cqr,dsp->abcd", n=4, p=2, q=2, r=2, s=2).to_dense()
    found = tnale(x, 2, tol=1e-3)
    assert error(found, x) <= 1e-3
    assert found.parameters <= 64


@pytest.mark.parametrize("n", [4, 6, 8])
def test_enumeration_takes_evaluations_of_order_n_squared_r(n):
    goal, calls = Structure((3,) * n, (1, 0, *range(2, n))), []

    def objective(s):
        calls.append(s)
        wrong = sum(abs(a - b) for a, b in zip(s.rank, goal.rank, strict=True))
        return wrong + sum(a != b for a, b in zip(s.order, goal.order, strict=True))

    assert local_enumeration(objective, Structure((1,) * n, tuple(range(n))), most=5) == goal
    assert len(calls) == len(set(calls))
    assert len(calls) <= 2 * n**2 + 8 * n


def tree_numbers(shape, bonds):
    root, _, a, b = bonds
    return shape[0] * root + root**2 + a * b * root + shape[1] * a + shape[2] * b


def test_the_bonds_of_a_tree_are_those_of_brute_force():
    x = torch.randn(5, 6, 4, generator=seeded(), dtype=torch.float64) * (0.6 ** torch.arange(6))[:, None]
    lost = {0: [], 1: [], 2: []}
    for mode in range(3):
        s = torch.linalg.svdvals(x.movedim(mode, 0).flatten(1)).square() / x.square().sum()
        lost[mode] = [float(s[r:].sum()) for r in range(len(s) + 1)]
    for budget in (25, 60, 100):
        every = [(r, r, a, b) for r, a, b in itertools.product(range(1, 6), range(1, 7), range(1, 5)) if a * b >= r]
        every = [bonds for bonds in every if tree_numbers(x.shape, bonds) <= budget]
        least = min(lost[0][r] + lost[1][a] + lost[2][b] for r, _, a, b in every)
        found = core_shapes(x, budget, tree=(0, (1, 2)))
        assert found in every
        assert lost[0][found[0]] + lost[1][found[2]] + lost[2][found[3]] <= least * 1.02 + 1e-12
        assert hierarchical_tucker(x, found, tree=(0, (1, 2))).parameters <= budget
    with pytest.raises(ValueError, match="does not hold bonds of one"):
        core_shapes(x, 16, tree=(0, (1, 2)))
    with pytest.raises(ValueError, match="must nest the 3 modes"):
        core_shapes(x, 50, tree=(0, 1))


def test_measured_shapes_are_no_worse_than_all_of_hosvd():
    x = torch.randn(5, 6, 4, generator=seeded(), dtype=torch.float64)
    bases = [torch.linalg.svd(x.movedim(m, 0).flatten(1), full_matrices=False)[0] for m in range(3)]
    core = torch.einsum("abc,ax,by,cz->xyz", x, *bases)
    for budget in (30, 80):
        every = [
            r
            for r in itertools.product(*[range(1, n + 1) for n in x.shape])
            if r[0] * r[1] * r[2] + sum(a * b for a, b in zip(r, x.shape, strict=True)) <= budget
        ]
        best = max(float(core[: r[0], : r[1], : r[2]].square().sum()) for r in every)
        a, b, c = core_shapes(x, budget, measured=True)
        assert float(core[:a, :b, :c].square().sum()) == pytest.approx(best)
    with pytest.raises(ValueError, match="measured=True is for Tucker"):
        core_shapes(x, 80, tree=(0, (1, 2)), measured=True)


def test_ranks_are_chosen_by_each_rule():
    generator = seeded()
    x = sum(
        torch.einsum("a,b,c->abc", *[torch.randn(n, generator=generator, dtype=torch.float64) for n in (6, 5, 7)])
        for _ in range(2)
    )
    noisy = x + 1e-4 * torch.randn(6, 5, 7, generator=generator, dtype=torch.float64)
    for rule in ({"tol": 0.01}, {"energy": 0.999}, {"elbow": True}):
        assert choose_rank(noisy, "tucker", **rule) == (2, 2, 2)
        assert choose_rank(noisy, "tt", **rule) == (2, 2)
        assert choose_rank(noisy, "cp", **rule) == 2
    rough = torch.randn(6, 5, 7, generator=generator, dtype=torch.float64)
    assert error(st_hosvd(rough, choose_rank(rough, "tucker", tol=0.5)), rough) <= 0.5
    assert error(tt_svd(rough, choose_rank(rough, "tt", tol=0.5)), rough) <= 0.5
    assert 60 <= tt_svd(rough, choose_rank(rough, "tt", budget=100)).parameters <= 100
    assert choose_rank(rough, "cp", budget=100) == 5
    for bad in ({}, {"tol": 0.1, "elbow": True}, {"budget": 17}):
        with pytest.raises(ValueError, match=r"exactly one|budget=17"):
            choose_rank(rough, "tt", **bad)
    with pytest.raises(ValueError, match="format='ring' is not known"):
        choose_rank(rough, "ring", tol=0.1)
