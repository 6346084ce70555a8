"""General networks, tree networks, and the contraction of many tensors."""

import random

import pytest
import torch

from polyad.decompose import hierarchical_tucker, trg_ising, ttn_bug
from polyad.einsum import contract, operations
from polyad.einsum import expression as contraction
from polyad.einsum import steps as stepping
from polyad.einsum.order import order
from polyad.formats import Network, TreeNetwork
from polyad.formats.networks.binary_tree import children


def seeded(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_network_loses_several_modes_of_one_tensor():
    x = Network("abx,cxy,dy->cabd", (seeded(3, 4, 2), seeded(5, 2, 3), seeded(6, 3)))
    dense = x.to_dense()
    assert torch.allclose(x[1, 2, :, 3].to_dense(), dense[1, 2, :, 3])
    assert torch.allclose(x[:, 2, 1, ::2].to_dense(), dense[:, 2, 1, ::2])
    assert x[1, 2, :, 3].expression == "bx,xy,y->b"
    assert Network("a,b->ab", (seeded(3), seeded(4)))[1].expression == "b->b"


@pytest.mark.parametrize("narrow", [1, 10**9])
@pytest.mark.parametrize(
    "expression", ["rbc,ka,kbd->radck", "rbc,dab->radc", "rbcs,bca->ras", "rbcs,cba->ras", "rbc,bx,ca->rxa"]
)
def test_what_is_summed_in_the_middle_of_a_tensor_is_summed_where_it_stands(monkeypatch, narrow, expression):
    monkeypatch.setattr(stepping, "NARROW", narrow)
    contraction._compile.cache_clear()
    sizes = {"r": 7, "a": 2, "b": 3, "c": 8, "d": 4, "s": 9, "k": 2, "x": 3}
    held = [
        seeded(*[sizes[c] for c in term], seed=i).requires_grad_()
        for i, term in enumerate(expression.split("->")[0].split(","))
    ]
    found, expected = contract(expression, *held), torch.einsum(expression, *held)
    torch.testing.assert_close(found, expected)
    for a, b in zip(*[torch.autograd.grad(y.square().sum(), held) for y in (found, expected)], strict=True):
        torch.testing.assert_close(a, b)
    contraction._compile.cache_clear()


def test_a_hyperedge_is_a_bond_like_any_other():
    cp = Network("ar,br,cr->abc", (seeded(3, 2), seeded(4, 2), seeded(5, 2)))
    assert cp.rank == {"r": 2}
    assert (cp + cp).rank == {"r": 4}
    assert torch.allclose((cp * cp).to_dense(), cp.to_dense() ** 2)


@pytest.mark.parametrize(
    ("expression", "shapes", "said"),
    [
        ("ab,bc", [(2, 3), (3, 4)], "is no einsum"),
        ("ab, bc->ac", [(2, 3), (3, 4)], "is no einsum"),
        ("aa,ab->b", [(2, 2), (2, 3)], r"letters twice in \['aa'\]"),
        ("ab,bc->ad", [(2, 3), (3, 4)], r"letters of no operand \['d'\]"),
        ("ab,ab->", [(2, 3), (2, 3)], "the output must have one letter or more"),
        ("ab,bc->ac", [(2, 3), (4, 4)], r"letters of two sizes \{'b': \[3, 4\]\}"),
        ("ab,bc->ac", [(7, 2, 3), (3, 4)], r"leading batch dimensions \[\(\), \(7,\)\]"),
        ("ab,bc->ac", [(2, 3)], "does not fit operands"),
    ],
)
def test_bad_networks_are_refused(expression, shapes, said):
    with pytest.raises(ValueError, match=said):
        Network(expression, tuple(torch.ones(shape) for shape in shapes))


def random_einsum(seed):
    """An einsum of up to 12 small operands: hyperedges, scalars, letters that are summed alone, any output."""
    draw = random.Random(seed)
    letters = "abcdefghijk"[: draw.randint(2, 9)]
    sizes = {c: draw.randint(1, 3) for c in letters}
    n = draw.randint(1, 12)
    terms = ["".join(draw.sample(letters, draw.randint(0, min(4, len(letters))))) for _ in range(n)]
    terms[0] = terms[0] or letters[0]
    if seed % 7 == 0:
        terms[-1] += terms[0][0] * 2
    used = sorted(set("".join(terms)))
    output = "".join(draw.sample(used, draw.randint(0, min(4, len(used)))))
    operands = [seeded(*[sizes[c] for c in term], seed=seed + i) for i, term in enumerate(terms)]
    return f"{','.join(terms)}->{output}", operands


@pytest.mark.parametrize("seed", range(150))
def test_contract_is_einsum(seed):
    expression, operands = random_einsum(seed)
    expected = torch.einsum(expression, *operands)
    torch.testing.assert_close(contract(expression, *operands), expected, rtol=1e-9, atol=1e-9)


def test_contract_agrees_traced_and_not_with_gradients():
    expression, operands = lattice(3, 3, 2)
    operands = [x.requires_grad_() for x in operands]
    compiled = torch.compile(lambda *given: contract(expression, *given), fullgraph=True, backend="aot_eager")
    both = [torch.autograd.grad(call(expression, *operands), operands) for call in (contract, torch.einsum)]
    both.append(torch.autograd.grad(compiled(*operands), operands))
    for found in both[:1] + both[2:]:
        for one, other in zip(found, both[1], strict=True):
            torch.testing.assert_close(one, other)
    pair = seeded(3, 4), seeded(4)
    many = torch.func.vmap(lambda x: contract("ab,bc,c->a", x, *pair))(seeded(5, 2, 3))
    torch.testing.assert_close(many, torch.einsum("zab,bc,c->za", seeded(5, 2, 3), *pair))


def lattice(rows, columns, bond):
    terms = [["" for _ in range(columns)] for _ in range(rows)]
    fresh = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for i in range(rows):
        for j in range(columns):
            for k, m in ((i, j + 1), (i + 1, j)):
                if k < rows and m < columns:
                    letter = next(fresh)
                    terms[i][j] += letter
                    terms[k][m] += letter
    flat = [term for row in terms for term in row]
    return ",".join(flat) + "->", [seeded(*[bond] * len(term), seed=i) for i, term in enumerate(flat)]


def test_orders_are_exact_for_few_and_good_and_repeatable_for_many():
    chain = ["ab", "bc", "cd", "de"]
    sizes = {"a": 2, "b": 50, "c": 3, "d": 40, "e": 5}
    exact = operations("ab,bc,cd,de->ae", tuple((sizes[t[0]], sizes[t[1]]) for t in chain))
    assert exact == 2 * (2 * 50 * 3 + 3 * 40 * 5 + 2 * 3 * 5)
    expression, operands = lattice(4, 5, 3)
    shapes = tuple(tuple(x.shape) for x in operands)
    assert operations(expression, shapes) < 30_000  # column by column: 3^5 entries, 20 times, 3 each
    terms, sizes = expression[:-2].split(","), dict.fromkeys(set(expression) - set(",->"), 3)
    state = random.getstate()
    assert order(terms, "", sizes) == order(terms, "", sizes)
    assert random.getstate() == state


def test_operands_that_do_not_fit_are_refused():
    for shapes in ([(2, 3), (4, 5)], [(2, 3), (3, 4, 5)]):
        with pytest.raises(ValueError, match="do not fit ab,bc"):
            contract("ab,bc->ac", *[torch.ones(shape) for shape in shapes])


TREES = [((0, 1), (2, 3)), (0, (1, (2, 3))), ((3, (0, 2)), 1), (((2, 1), 3), 0)]


def planted(tree, shape=(6, 5, 4, 7), rank=2, batch=(), dtype=torch.float64, seed=0):
    below, nodes = children(tree), []
    for i, (mode, pair) in enumerate(below):
        size = (*batch, *((shape[mode],) if pair is None else (rank, rank)), *([rank] if i else []))
        nodes.append(seeded(*size, dtype=dtype, seed=seed + i))
    return TreeNetwork(tree, tuple(nodes))


def relative(found, x, batch=0):
    return float(((found.to_dense() - x).flatten(batch).norm(dim=-1) / x.flatten(batch).norm(dim=-1)).max())


@pytest.mark.parametrize("tree", TREES)
def test_hierarchical_tucker_finds_planted_trees(tree):
    x = planted(tree)
    for found in (
        hierarchical_tucker(x.to_dense(), 2, tree=tree),
        hierarchical_tucker(x.to_dense(), tol=1e-9, tree=tree),
        hierarchical_tucker(1e-30 * x.to_dense(), tol=1e-9, tree=tree) * 1e30,
        (x + x - 0.5 * x).round(tol=1e-9),
        (x + x).round(2) * 0.5,
    ):
        assert found.tree == tree
        assert found.rank == x.rank
        scale = 1.5 if relative(found, x.to_dense()) > 0.4 else 1
        assert relative(found, scale * x.to_dense()) < 1e-8


@pytest.mark.parametrize("tol", [0.7, 0.3, 0.05, 1e-3, 0.0])
@pytest.mark.parametrize("tree", TREES)
def test_trees_keep_the_tolerance(tree, tol):
    decay = 0.4 ** torch.arange(6, dtype=torch.float64)
    x = seeded(2, 6, 6, 6, 6) * decay[:, None, None, None] * decay[:, None, None] * decay[:, None] * decay
    x[1] = seeded(6, 6, 6, 6, seed=3)
    found = hierarchical_tucker(x, tol=tol, tree=tree, batch=1)
    assert relative(found, x, 1) <= tol + 1e-13
    one = hierarchical_tucker(x[0], tol=tol, tree=tree)
    assert relative(one, x[0]) <= tol + 1e-13
    whole = hierarchical_tucker(x, tol=0, tree=tree, batch=1)
    rounded = whole.round(tol=tol)
    assert relative(rounded, x, 1) <= tol + 1e-13
    assert rounded.round(tol=1e-9).rank == rounded.rank
    if tol > 0.01:
        assert one.parameters < x[0].numel()


def test_trees_of_odd_tensors():
    assert not hierarchical_tucker(torch.zeros(3, 4, 5), tol=0.1).to_dense().any()
    assert hierarchical_tucker(torch.zeros(3, 4, 5), tol=0.1).round(tol=0.1).rank == (1, 1, 1, 1)
    ones = hierarchical_tucker(torch.ones(1, 4, 1, 3), 5)
    assert torch.allclose(ones.to_dense(), torch.ones(1, 4, 1, 3))
    assert hierarchical_tucker(seeded(7), tol=0.1).round(tol=0.1).shape == (7,)
    x = seeded(4, 6, 5).bfloat16()
    assert relative(hierarchical_tucker(x, tol=0.01), x) < 0.02
    assert hierarchical_tucker(x, 3).dtype == torch.bfloat16
    y = seeded(5, 6, 4).permute(2, 0, 1)
    assert relative(hierarchical_tucker(y, tol=1e-8), y) <= 1e-8


def test_rounding_of_trees_has_gradients():
    x = planted(((0, 1), 2), (3, 4, 3))
    nodes = [node.requires_grad_() for node in x.nodes]
    assert torch.autograd.gradcheck(lambda *given: TreeNetwork(x.tree, given).round(2).norm(), nodes)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: TreeNetwork((0, 2), (torch.ones(1, 1),) * 3), "must nest pairs of the mode numbers"),
        (lambda: TreeNetwork((0, 1, 2), (torch.ones(1, 1),) * 3), "is no pair of trees"),
        (lambda: TreeNetwork((0, 1), (torch.ones(1, 1),) * 2), "which has 3 nodes"),
        (lambda: TreeNetwork((0, 1), (torch.ones(1, 2), torch.ones(3, 1), torch.ones(3, 1))), "do not agree in tree"),
        (lambda: planted(TREES[0]).round(0), "rank=0 must be at least 1"),
        (lambda: planted(TREES[0]).round(2, tol=0.1), "exactly one of rank, tol"),
        (lambda: hierarchical_tucker(torch.ones(2, 3), 1, tree=(0, 2)), "must nest the 2 modes of x"),
        (lambda: hierarchical_tucker(torch.ones(2, 3), (1, 2, 3)), "one for each of the 2 nodes"),
        (lambda: hierarchical_tucker(torch.ones(2, 3) * float("inf"), 1), "6 infinite"),
    ],
)
def test_bad_trees_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_evolution_of_trees_is_of_first_order_and_exact_at_full_rank_in_the_limit(dtype):
    tree, n = ((0, 1), (2, 3)), (3, 2, 3, 2)
    start = planted(tree, n)
    start = TreeNetwork(tree, tuple(node.to(dtype) for node in start.nodes))
    a, b = (0.3 * seeded(k, k, seed=k).to(dtype) for k in (3, 2))
    a, b = (a - a.mH, b - b.mH) if dtype.is_complex else (a - a.mT, b)
    turn = 1j if dtype.is_complex else 1.0
    dense = torch.kron(torch.kron(a, torch.eye(6).to(dtype)), b) + turn * torch.kron(
        torch.eye(6).to(dtype), torch.kron(a, torch.eye(2).to(dtype))
    )
    exact = (torch.matrix_exp(0.4 * dense) @ start.to_dense().flatten()).reshape(n)
    operator = [{0: a, 3: b}, {2: turn * a}]
    errors = [
        float((ttn_bug(start, operator, 0.4, steps=steps, tol=1e-12).to_dense() - exact).norm() / exact.norm())
        for steps in (4, 16, 64)
    ]
    assert errors[2] < errors[1] / 3 < errors[0] / 9
    assert errors[2] < 1e-2


def test_bad_evolutions_are_refused():
    start = planted(TREES[0])
    for operator, steps, said in (
        ([], 1, "operator is empty"),
        ([{0: torch.eye(3)}], 1, r"operator\[0\] maps mode 0"),
        ([{7: torch.eye(3)}], 1, r"operator\[0\] maps mode 7"),
        ([{0: torch.eye(6)}], 0, "steps=0"),
    ):
        with pytest.raises(ValueError, match=said):
            ttn_bug(start, operator, 1.0, steps=steps)


def test_ising_by_coarse_graining_is_exact_on_a_small_torus():
    spins = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64)] * 4).reshape(-1, 2, 2)
    energy = sum((spins * spins.roll(1, axis)).sum((1, 2)) for axis in (1, 2))
    exact = float(torch.logsumexp(0.4 * energy, 0)) / 4
    assert trg_ising(0.4, 16, levels=2) == pytest.approx(exact, abs=1e-12)
    with pytest.raises(ValueError, match="rank=1"):
        trg_ising(0.4, 1)
