"""Sums over the nodes of a tree, held to brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.algorithms import TreeField, exponential, smooth


def tree(n, span=5, seed=0):
    """Each node hangs on one of the few before it, in an order that is then mixed."""
    generator = torch.Generator().manual_seed(seed)
    parents = [int(torch.randint(max(0, i - span), i, (1,), generator=generator)) for i in range(1, n)]
    mixed = torch.randperm(n, generator=generator)
    edges = mixed[torch.tensor([[a, i] for i, a in enumerate(parents, start=1)], dtype=torch.long).reshape(-1, 2)]
    return edges, torch.rand(n - 1, generator=generator, dtype=torch.float64)


def field(n, columns=2, seed=0):
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shortest(n, edges, lengths):
    """Floyd's and Warshall's distances of a graph."""
    found = torch.full((n, n), torch.inf, dtype=torch.float64).fill_diagonal_(0)
    for (a, b), length in zip(edges.tolist(), lengths.tolist(), strict=True):
        found[a, b] = found[b, a] = min(float(found[a, b]), length)
    for k in range(n):
        found = torch.minimum(found, found[:, k : k + 1] + found[k])
    return found


KERNELS = {
    "exponential": (exponential(-0.7), lambda d: (-0.7 * d).exp(), 1e-13),
    "growing": (exponential(0.2), lambda d: (0.2 * d).exp(), 1e-13),
    "constant": (smooth(torch.ones_like, 1), torch.ones_like, 1e-13),
    "quartic": (smooth(lambda d: d**4 - 3 * d, 5), lambda d: d**4 - 3 * d, 1e-12),
    "rational": (smooth(lambda d: 1 / (1 + d), 20, scale=1.0), lambda d: 1 / (1 + d), 1e-9),
    "wave": (smooth(torch.cos, 24), torch.cos, 1e-9),
}


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 25), span=st.sampled_from([1, 3, 100]), seed=st.integers(0, 99), name=st.sampled_from([*KERNELS])
)
def test_every_function_agrees_with_brute_force(n, span, seed, name):
    kernel, function, limit = KERNELS[name]
    edges, lengths = tree(n, span, seed)
    made, x = TreeField.of(edges, lengths), field(n)
    distances = made.distances()
    assert torch.allclose(distances, shortest(n, edges, lengths))
    expected = function(distances) @ x
    size = float((1 + function(distances).norm()) * x.norm())
    assert float((made.integrate(x, kernel) - expected).norm()) <= limit * size
    assert torch.allclose(made.integrate(x[:, 0], kernel), made.integrate(x, kernel)[:, 0])


def test_stars_paths_and_lengths_of_zero():
    star = torch.tensor([[0, i] for i in range(1, 9)])
    path = torch.tensor([[i, i + 1] for i in range(8)])
    for edges in (star, path):
        for lengths in (None, torch.zeros(8, dtype=torch.float64)):
            made, x = TreeField.of(edges, lengths), field(9)
            expected = (1 + made.distances() ** 2) @ x
            assert torch.allclose(made.integrate(x, smooth(lambda d: 1 + d**2, 3)), expected)
    assert len(TreeField.of(star).levels) == 2
    assert len(TreeField.of(path).levels) == 4


def test_multiplications_grow_as_n_log_n():
    counts = {n: TreeField.of(*tree(n, 20)).multiplications(1) for n in (100, 1000)}
    assert counts[1000] <= 4 * 1000 * 10
    assert counts[1000] < 20 * counts[100]
    assert counts[1000] < 1000**2 / 20


def test_gradients_and_precision():
    made = TreeField.of(*tree(12))
    rate = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    x = field(12).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, rate: made.integrate(x, exponential(rate)), (x, rate))
    exact = made.integrate(field(12), exponential(-0.5))
    for dtype, limit in ((torch.float32, 1e-6), (torch.bfloat16, 0.02)):
        found = made.integrate(field(12).to(dtype), exponential(-0.5))
        assert found.dtype == dtype
        assert float((found.double() - exact).norm() / exact.norm()) < limit


def test_the_spanning_tree_of_a_graph_is_the_least():
    edges = torch.tensor([[a, b] for a in range(6) for b in range(a)])
    lengths = field(15, 1).abs().squeeze(1)
    made = TreeField.spanning(edges, lengths)
    assert len(made.edges) == 5
    assert bool((made.distances() >= shortest(6, edges, lengths) - 1e-12).all())
    widest = shortest(6, edges, lengths)
    for k in range(6):  # the narrowest bottleneck between two nodes, which a least spanning tree keeps
        widest = torch.minimum(widest, torch.maximum(widest[:, k : k + 1], widest[k]))
    assert float(made.lengths.max()) <= float(lengths.max())
    heavier = TreeField.spanning(edges, -lengths + lengths.max())
    total = (lengths.max() - heavier.lengths).sum()
    assert float(made.lengths.sum()) < float(total)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: TreeField.of(torch.tensor([[0, 1], [1, 0]])), "hold a cycle"),
        (lambda: TreeField.of(torch.tensor([[0, 3], [1, 2]])), "from 0 to 3; a tree of 3 nodes has 0 to 2"),
        (lambda: TreeField.of(torch.ones(2, 2)), "must be integers"),
        (lambda: TreeField.of(torch.tensor([[0, 1]]), torch.tensor([-1.0])), "none below zero"),
        (lambda: TreeField.of(torch.tensor([[0, 1]]), torch.tensor([torch.nan])), "1 NaN"),
        (lambda: TreeField.of(*tree(5)).integrate(field(4), exponential(1.0)), "each of the 5 nodes"),
        (lambda: TreeField.spanning(torch.tensor([[0, 1], [2, 3]]), torch.ones(2)), "a tree of 3 nodes"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()
