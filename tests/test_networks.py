"""General networks, tree networks, and the contraction of many tensors."""

import pytest
import torch

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
