"""The same tensor in other kinds of format."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.formats import (
    CP,
    BlockTensorTrain,
    BlockTerm,
    Circulant,
    Dense,
    Kronecker,
    LowRank,
    Network,
    Sum,
    SymmetricCP,
    TensorRing,
    TensorTrain,
    Toeplitz,
    TrainMatrix,
    TreeNetwork,
    Tucker,
    convert,
    kinds,
)
from polyad.formats.convert import _OF_MATRICES, _WAYS
from polyad.formats.networks.multilinear import Multilinear

MULTIWAY = (BlockTerm, CP, SymmetricCP, TensorRing, TensorTrain, Tucker)
TO = {
    BlockTerm: {Network, TensorRing, TensorTrain, TreeNetwork, Tucker},
    CP: {BlockTerm, Network, TensorRing, TensorTrain, TreeNetwork, Tucker},
    SymmetricCP: {BlockTerm, CP, Network, TensorRing, TensorTrain, TreeNetwork, Tucker},
    TensorRing: {Network, TensorTrain, TreeNetwork},
    TensorTrain: {Network, TensorRing, TreeNetwork},
    Tucker: {BlockTerm, Network, TensorRing, TensorTrain, TreeNetwork},
}
OF_TWO_MODES = {BlockTerm, CP, Kronecker, LowRank, Network, TensorRing, TensorTrain, TrainMatrix, TreeNetwork, Tucker}


def drawn(kind, shape, seed=0):
    return kind.random(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stacked(x, y):
    """Two formats of equal tensors' shapes as a batch."""
    held = zip(x.tensors().items(), y.tensors().values(), strict=True)
    return x.replace({name: torch.stack((a, b)) for (name, a), b in held})


def assert_same(found, x):
    dense = x.to_dense()
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert torch.allclose(found.to_dense(), dense, rtol=1e-12, atol=1e-12 * (1 + float(dense.norm())))


@given(st.sampled_from(MULTIWAY), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_tensor_stays_the_same_in_every_kind(kind, shape, batch):
    shape = [shape[0]] * len(shape) if kind is SymmetricCP else shape
    x = drawn(kind, shape)
    x = stacked(x, drawn(kind, shape, 1)) if batch else x
    targets = TO[kind] | {Dense} | (OF_TWO_MODES - {kind} if len(shape) == 2 else set())
    for target in targets:
        found = convert(x, target)
        assert type(found) is target
        assert_same(found, x)


@given(
    st.sampled_from([k for k in kinds().values() if issubclass(k, Multilinear) and k.fits((4, 6))]),
    st.integers(1, 8),
    st.integers(1, 8),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_matrix_network_is_a_network(kind, n, m):
    x = drawn(kind, (n, m))
    found = convert(x, Network)
    assert_same(found, x)
    assert found.parameters == x.parameters


@pytest.mark.parametrize(("start", "end"), [*_WAYS, *_OF_MATRICES], ids=lambda kind: kind.__name__)
def test_every_step_is_exact_and_differentiable(start, end):
    many = issubclass(start, Multilinear) and start.fits((1,)) and (start, end) not in _OF_MATRICES
    shapes = ((6, 6), (3, 2, 4, 3)) if many else ((6, 6),)
    for shape in shapes:
        x = drawn(start, shape)
        found = convert(x, end)
        assert type(found) is end
        assert_same(found, x)
        leaves = {name: t.clone().requires_grad_() for name, t in x.tensors().items()}
        held = x.replace(leaves)
        expected = torch.autograd.grad(held.to_dense().sin().sum(), list(leaves.values()))
        gradient = torch.autograd.grad(convert(held, end).to_dense().sin().sum(), list(leaves.values()))
        assert all(torch.allclose(a, b) for a, b in zip(gradient, expected, strict=True))


def test_bonds_are_those_stated():
    x = CP(tuple(torch.ones(n, 3) for n in (4, 5, 6, 7)))
    assert convert(x, TensorTrain).rank == (3, 3, 3)
    assert convert(x, TensorRing).rank == (1, 3, 3, 3)
    assert convert(x, Tucker).core.diagonal(dim1=0, dim2=1).sum() == 3
    ring = TensorRing((torch.ones(2, 4, 3), torch.ones(3, 5, 4), torch.ones(4, 6, 2)))
    assert convert(ring, TensorTrain).rank == (6, 8)
    tucker = Tucker(torch.ones(2, 3, 4), (torch.ones(5, 2), torch.ones(6, 3), torch.ones(7, 4)))
    assert convert(tucker, TensorTrain).rank == (2, 4)
    kronecker = Kronecker(torch.ones(3, 2, 4), torch.ones(3, 5, 2))
    assert convert(kronecker, TrainMatrix).rank == (3,)
    assert convert(convert(kronecker, TrainMatrix), Kronecker).rank == 3
    assert type(convert(drawn(kinds()["Monarch"], (6, 6)), BlockTensorTrain)) is BlockTensorTrain


def test_a_train_matrix_is_a_train_over_pairs_of_modes():
    w = TrainMatrix((torch.rand(2, 3, 2), torch.rand(2, 4, 5, 2), torch.rand(2, 3, 2)))
    train = w.train()
    pairs = w.to_dense().reshape(2, 4, 3, 3, 5, 2).permute(0, 3, 1, 4, 2, 5).reshape(6, 20, 6)
    assert torch.allclose(train.to_dense(), pairs)
    assert torch.equal(TrainMatrix.from_train(train, *w.modes).to_dense(), w.to_dense())


def test_a_sum_is_converted_term_by_term():
    terms = (drawn(LowRank, (4, 6)), drawn(CP, (4, 6), 1), drawn(TensorTrain, (4, 6), 2))
    x = Sum(terms)
    for kind in (LowRank, Tucker, TensorRing):
        found = convert(x, kind)
        assert type(found) is kind
        assert_same(found, x)
    assert_same(convert(x, Dense), x)
    with pytest.raises(ValueError, match="do not add up to one Network"):
        convert(x, Network)


def test_nothing_is_done_to_what_is_of_the_kind():
    x = drawn(CP, (2, 3))
    assert convert(x, CP) is x


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: convert(drawn(Tucker, (2, 3, 4)), LowRank),
            "cannot be converted to LowRank exactly; choose from BlockTerm, Dense, Network, TensorRing, ",
        ),
        (lambda: convert(drawn(Toeplitz, (4, 4)), LowRank), "choose from Dense, or approximate it by a"),
        (lambda: convert(Circulant(torch.ones(2, 2, 3)), Toeplitz), "only a circulant matrix of one block"),
        (lambda: convert(drawn(TreeNetwork, (2, 3, 4)), TensorTrain), "choose from Dense, Network"),
        (lambda: convert(TrainMatrix((torch.ones(2, 3),)), Kronecker), "only one of two cores"),
    ],
)
def test_what_is_not_exact_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
