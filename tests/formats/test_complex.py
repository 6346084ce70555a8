"""Formats of complex numbers: conjugated where due, or refused; nothing drops an imaginary part."""

import pytest
import torch

from polyad.formats import (
    CP,
    Circulant,
    LowRank,
    Network,
    SymmetricCP,
    TensorRing,
    TensorTrain,
    Toeplitz,
    TreeNetwork,
    Tubal,
    Tucker,
)
from polyad.formats.format import Format

KINDS = [CP, SymmetricCP, TensorTrain, TensorRing, Tucker]


def drawn(kind: type[Format], shape):
    """An instance whose tensors have imaginary parts."""
    draw = torch.Generator().manual_seed(0)
    real = kind.random(shape, generator=draw, dtype=torch.float64)
    return real.replace({
        name: torch.complex(t, torch.randn(t.shape, generator=draw, dtype=t.dtype))
        for name, t in real.tensors().items()
    })  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_norms_and_inner_products_conjugate(kind):
    x, y = drawn(kind, (4, 4, 4)), drawn(kind, (4, 4, 4)) * 2j
    dense = x.to_dense()
    assert x.dtype == torch.complex128
    assert x.norm().dtype == torch.float64
    assert torch.allclose(x.norm(), dense.norm())
    assert torch.allclose(x.inner(y), (dense.conj() * y.to_dense()).sum())
    assert torch.allclose((x + y).to_dense(), dense + y.to_dense())
    assert x.parameters == sum(t.numel() for t in x.tensors().values())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_complex_norms(kind):
    x = drawn(kind, (3, 3, 3))
    names, tensors = zip(*x.tensors().items(), strict=True)
    norm = lambda *parts: x.replace(dict(zip(names, parts, strict=True))).norm()  # noqa: E731
    assert torch.autograd.gradcheck(norm, tuple(t.detach().requires_grad_() for t in tensors))


def test_rounding_without_conjugates_is_refused():
    with pytest.raises(TypeError, match="is not known for complex numbers; norm, inner, sums, products"):
        drawn(TensorRing, (4, 4, 4)).round(tol=0.1)


@pytest.mark.parametrize("kind", [LowRank, Tucker, TensorTrain, TreeNetwork])
def test_rounding_conjugates(kind):
    x = drawn(kind, (4, 4) if kind is LowRank else (4, 4, 4))
    dense = x.to_dense()
    again = (x + x * 2j).round(tol=1e-12)
    assert again.rank == x.round(tol=1e-12).rank
    assert torch.allclose(again.to_dense(), (1 + 2j) * dense)
    assert (x.round(tol=0.3).to_dense() - dense).norm() <= 0.3 * dense.norm()


@pytest.mark.parametrize("kind", [Circulant, Toeplitz, Tubal])
def test_kinds_with_transforms_of_their_own_are_refused(kind):
    with pytest.raises(TypeError, match=rf"a {kind.__name__} of torch.complex128 is not known; hold real"):
        drawn(kind, (4, 4, 4) if kind is Tubal else (4, 4))


def test_linear_maps_of_complex_numbers():
    x, rows = drawn(LowRank, (5, 4)), torch.randn(3, 4, dtype=torch.complex128)
    assert torch.allclose(x.linear(rows), rows @ x.to_dense().mT)
    ring = Network("axy,byx->ab", (x.to_dense()[:, :, None], torch.ones(4, 1, 4, dtype=torch.complex128)))
    assert torch.allclose(ring.norm(), ring.to_dense().norm())
