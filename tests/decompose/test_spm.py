"""Symmetric sums of outer products, and the subspace power method."""

import itertools

import pytest
import torch

from polyad.decompose import spm
from polyad.decompose.cp.spm import climb
from polyad.formats import CP, SymmetricCP


def planted(d, order, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(d, rank, generator=generator, dtype=torch.float64)
    weights = 1 + torch.rand(rank, generator=generator, dtype=torch.float64)
    return SymmetricCP(factor / factor.norm(dim=0), weights, order)


@pytest.mark.parametrize(("d", "order", "rank"), [(6, 3, 4), (6, 4, 9), (4, 5, 4), (4, 6, 5), (1, 4, 1)])
def test_all_terms_are_found_and_counted(d, order, rank):
    truth = planted(d, order, rank)
    found = spm(truth.to_dense())
    assert found.rank == rank
    assert (found.weights.abs().diff() <= 0).all()
    assert torch.allclose((truth.factor.T @ found.factor).abs().amax(1), torch.ones(rank).double(), atol=1e-10)
    assert float((found.to_dense() - truth.to_dense()).norm()) < 1e-9


def test_terms_of_either_sign_at_any_scale():
    truth = planted(6, 4, 5)
    truth = SymmetricCP(truth.factor, truth.weights * torch.tensor([1.0, -1, 1, -1, 1]), 4)
    for scale in (1.0, 1e-30, 1e30):
        found = spm(truth.to_dense() * scale)
        assert sorted((found.weights / scale).sign().tolist()) == [-1, -1, 1, 1, 1]
        assert float((found.to_dense() / scale - truth.to_dense()).norm()) < 1e-8


def test_noise_moves_the_terms_a_little():
    truth = planted(8, 4, 5)
    x = truth.to_dense()
    generator = torch.Generator().manual_seed(1)
    draw = torch.randn(8, 8, 8, 8, generator=generator, dtype=torch.float64)
    e = sum(draw.permute(order) for order in itertools.permutations(range(4)))
    found = spm(x + 1e-4 * x.norm() / e.norm() * e, 5)
    assert float((found.to_dense() - x).norm() / x.norm()) < 1e-3


def test_the_objective_never_falls():
    x = planted(6, 4, 9).to_dense()
    u = torch.linalg.svd(x.reshape(36, 36))[0]
    trace = []
    a = climb(u[:, :9], 6, 1e-13, 300, torch.Generator().manual_seed(0), trace)
    whole = torch.stack([values for values in trace if len(values) == len(trace[0])])
    assert (whole.diff(dim=0) > -1e-13).all()
    assert float((torch.kron(a, a) @ u[:, :9]).norm()) == pytest.approx(1)


def test_single_precision_keeps_its_dtype():
    truth = planted(6, 4, 3).to(torch.float32)
    found = spm(truth.to_dense())
    assert (found.dtype, found.rank) == (torch.float32, 3)
    assert float((found.to_dense() - truth.to_dense()).norm()) < 1e-4


def test_the_format_leaves_the_symmetry_as_a_cp():
    x = planted(4, 3, 2)
    assert isinstance(x[0], CP)
    assert torch.allclose(x[0].to_dense(), x.to_dense()[0])
    assert torch.allclose((x + x * 2).to_dense(), 3 * x.to_dense())
    assert torch.allclose((x * x).to_dense(), x.to_dense() ** 2)
    assert float(x.inner(x)) == pytest.approx(float(x.norm()) ** 2)
    assert x.parameters == 4 * 2 + 2
    assert torch.allclose(x.entries(torch.tensor([[1, 3, 2]])), x.to_dense()[1, 3, 2])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: spm(torch.rand(3, 3, 3)), "when two modes are swapped"),
        (lambda: spm(torch.rand(3, 3, 4)), "all modes must have one size"),
        (lambda: spm(torch.eye(3)), "at least 3 are needed"),
        (lambda: spm(planted(4, 4, 3).to_dense(), 7), "rank=7 exceeds the number of terms that can be told apart"),
        (lambda: spm(planted(4, 4, 3).to_dense() * float("inf")), "infinite"),
        (lambda: SymmetricCP(torch.ones(3, 2), torch.ones(3), 3), "do not agree"),
        (lambda: SymmetricCP.random((3, 4, 3), generator=torch.Generator()), "modes of one size"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
