"""General networks, tree networks, and the contraction of many tensors."""

import random

import pytest
import torch

from polyad.einsum import contract, operations
from polyad.einsum.order import order
from polyad.formats import Network


def seeded(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_network_loses_several_modes_of_one_tensor():
    x = Network("abx,cxy,dy->cabd", (seeded(3, 4, 2), seeded(5, 2, 3), seeded(6, 3)))
    dense = x.to_dense()
    assert torch.allclose(x[1, 2, :, 3].to_dense(), dense[1, 2, :, 3])
    assert torch.allclose(x[:, 2, 1, ::2].to_dense(), dense[:, 2, 1, ::2])
    assert x[1, 2, :, 3].expression == "bx,xy,y->b"
    assert Network("a,b->ab", (seeded(3), seeded(4)))[1].expression == "b->b"


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
        ("ab,ab->", [(2, 3), (2, 3)], "at least is to be left"),
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


def test_contract_traced_and_not_agree_with_gradients():
    expression, operands = lattice(3, 4, 2)
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
