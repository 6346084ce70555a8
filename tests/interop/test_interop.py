"""Formats in other packages' clothes and back, on tensors that the other package computes too."""

import numpy
import pytest
import torch

from polyad.formats import CP, Kronecker, LowRank, Sparse, TensorTrain, Tucker
from polyad.interop.linear_operator import to_linear_operator
from polyad.interop.opt_einsum import from_opt_einsum, to_opt_einsum
from polyad.interop.quimb import from_quimb, to_quimb
from polyad.interop.scipy import from_scipy, to_scipy, to_scipy_operator
from polyad.interop.tensorly import from_tensorly, to_tensorly

MULTIWAY = (CP, Tucker, TensorTrain)


def drawn(kind, *shape):
    return kind.random(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def near(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", MULTIWAY)
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6)])
def test_tensorly_sees_the_same_tensor(kind, shape):
    import tensorly

    x = drawn(kind, *shape)
    with tensorly.backend_context("pytorch"):
        theirs = to_tensorly(x)
        near(theirs.to_tensor(), x.to_dense())
    near(from_tensorly(theirs).to_dense(), x.to_dense())
    assert type(from_tensorly(theirs)) is kind


def test_tensorly_of_another_backend_and_of_one_core():
    from tensorly.cp_tensor import CPTensor

    theirs = CPTensor((None, [numpy.ones((3, 2)), numpy.ones((4, 2))]))
    near(from_tensorly(theirs).to_dense(), torch.full((3, 4), 2.0, dtype=torch.float64))
    one = TensorTrain((torch.arange(3.0),))
    assert torch.equal(from_tensorly(to_tensorly(one)).to_dense(), torch.arange(3.0))


@pytest.mark.parametrize("kind", MULTIWAY)
def test_quimb_contracts_to_the_same_tensor(kind):
    x = drawn(kind, 4, 5, 6)
    theirs = to_quimb(x)
    near(theirs.contract(output_inds=["k0", "k1", "k2"]).data, x.to_dense())
    near(from_quimb(theirs, ("k2", "k0", "k1")).to_dense(), x.to_dense().permute(2, 0, 1))
    theirs.exponent = 2.0
    near(from_quimb(theirs, ("k0", "k1", "k2")).to_dense(), 100 * x.to_dense())


@pytest.mark.parametrize("kind", [*MULTIWAY, LowRank])
def test_opt_einsum_contracts_to_the_same_tensor(kind):
    import opt_einsum

    x = drawn(kind, 4, 5) if kind is LowRank else drawn(kind, 4, 5, 6)
    expression, operands = to_opt_einsum(x)
    near(opt_einsum.contract(expression, *operands), x.to_dense())
    near(from_opt_einsum(expression, *operands).to_dense(), x.to_dense())


def test_opt_einsum_batches_implicit_outputs_and_other_arrays():
    import opt_einsum

    x = drawn(LowRank, 3, 4, 5)
    expression, operands = to_opt_einsum(x)
    near(opt_einsum.contract(expression, *operands), x.to_dense())
    near(from_opt_einsum(expression, *operands).to_dense(), x.to_dense())
    arrays = [numpy.arange(6.0).reshape(2, 3), numpy.arange(12.0).reshape(3, 4), numpy.arange(8.0).reshape(4, 2)]
    for written in ("zb, bc, ca", "zb,bc,ca->az", "zb,bc,ca->zac"):
        near(from_opt_einsum(written, *arrays).to_dense(), torch.from_numpy(opt_einsum.contract(written, *arrays)))


def test_sparse_matrices_keep_their_entries():
    from scipy.sparse import coo_array

    x = drawn(LowRank, 6, 4).to_dense() * (torch.arange(24).reshape(6, 4) % 3 == 0)
    theirs = to_scipy(Sparse.from_dense(x))
    assert theirs.nnz == 8
    assert numpy.array_equal(theirs.toarray(), x.numpy())
    assert torch.equal(from_scipy(theirs.tocsc()).to_dense(), x)
    twice = coo_array((numpy.ones(2), (numpy.array([1, 1]), numpy.array([2, 2]))), shape=(3, 4))
    found = from_scipy(twice)
    assert (found.values.tolist(), found.index().tolist()) == ([2.0], [6])


def test_scipy_solves_through_a_format():
    from scipy.sparse.linalg import cg

    factor = drawn(LowRank, 8, 8)
    x = LowRank(factor.left, factor.left.mT) + LowRank(*(torch.eye(8, dtype=torch.float64),) * 2)
    operator = to_scipy_operator(x)
    assert numpy.allclose(operator @ numpy.eye(8), x.to_dense())
    tall = drawn(LowRank, 5, 3)
    assert numpy.allclose(to_scipy_operator(tall).T @ numpy.eye(5), tall.to_dense().mT)
    solution, failed = cg(operator, numpy.ones(8), rtol=1e-12)
    assert not failed
    near(x.to_dense() @ torch.from_numpy(solution), torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("x", [drawn(LowRank, 6, 4), drawn(LowRank, 3, 6, 4), drawn(Kronecker, 6, 4)], ids=repr)
def test_linear_operators_multiply_as_the_format(x):
    operator = to_linear_operator(x)
    near(operator @ torch.eye(4, dtype=torch.float64), x.to_dense())
    near(operator.mT @ torch.eye(6, dtype=torch.float64), x.to_dense().mT)
    near(operator @ torch.ones(4, dtype=torch.float64), x.to_dense().sum(-1))


def test_linear_operators_solve_and_carry_gradients():
    left = drawn(LowRank, 6, 6).left.requires_grad_()
    x = LowRank(left, left.mT) + LowRank(*(torch.eye(6, dtype=torch.float64),) * 2)
    solution = to_linear_operator(x).solve(torch.ones(6, 1, dtype=torch.float64))
    near(x.to_dense() @ solution, torch.ones(6, 1, dtype=torch.float64))
    solution.sum().backward()
    assert float(left.grad.abs().max()) > 1e-6


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: to_tensorly(drawn(LowRank, 4, 3)), "no counterpart of LowRank"),
        (lambda: to_tensorly(CP((torch.ones(2, 3, 1),))), "is a batch, which TensorLy does not have"),
        (lambda: from_tensorly(torch.ones(3)), "a Tensor is not converted"),
        (lambda: to_quimb(drawn(Kronecker, 4, 6)), "modes made of several axes"),
        (lambda: to_quimb(Sparse.from_dense(torch.eye(2))), "is no tensor network"),
        (lambda: from_quimb(to_quimb(drawn(CP, 3, 4)), ("k0", "k7")), r"names \['k7'\]"),
        (lambda: to_opt_einsum(drawn(Kronecker, 4, 6)), "modes made of several axes"),
        (lambda: to_opt_einsum(Sparse.from_dense(torch.eye(2))), "is no tensor network"),
        (lambda: from_opt_einsum("...ab,bc->...ac", torch.ones(2, 2, 2), torch.ones(2, 2)), "an ellipsis is a batch"),
        (lambda: from_opt_einsum("ab,bc->ac", torch.ones(2, 2), torch.ones(3, 2)), "letters of two sizes"),
        (lambda: to_scipy(Sparse.from_dense(torch.ones(2, 2, 2))), "3 modes; SciPy's sparse arrays are matrices"),
        (lambda: to_scipy_operator(drawn(CP, 3, 4, 5)), "3 modes; a linear operator is a matrix"),
        (lambda: to_linear_operator(drawn(CP, 3)), "1 dimensions; a linear operator is a matrix"),
    ],
)
def test_what_has_no_counterpart_is_said(call, said):
    with pytest.raises(ValueError, match=said):
        call()
