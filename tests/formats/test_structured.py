"""Structured matrices and the nearest matrix of each kind."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.decompose import (
    householder_product,
    low_displacement,
    nearest_block_tensor_train,
    nearest_circulant,
    nearest_monarch,
    nearest_toeplitz,
)  # fmt: skip
from polyad.formats import BlockTensorTrain, Circulant, Dense, Householder, LowDisplacement, Monarch, Sum, Toeplitz
from polyad.formats.structured import toeplitz
from polyad.formats.structured.fourier import fast_length
from polyad.formats.structured.grid import split_blocks
from polyad.linalg import block_product_svd, block_svd

KINDS = (Monarch, BlockTensorTrain, Circulant, Toeplitz, LowDisplacement, Householder)
NEAREST = {
    Monarch: nearest_monarch,
    BlockTensorTrain: lambda x, **given: nearest_block_tensor_train(x, 2, **given),
    Circulant: nearest_circulant,
    Toeplitz: nearest_toeplitz,
    LowDisplacement: lambda x, **given: low_displacement(x, 2, **given),
}
SHAPES = ((12, 12), (12, 20), (30, 8))


def seeded(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def drawn(kind, *shape, dtype=torch.float64, seed=0):
    return kind.random(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def off(found, x):
    found = found.to_dense() if not isinstance(found, torch.Tensor) else found
    return float((found - x).norm() / x.norm())


@pytest.mark.parametrize("kind", NEAREST)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_planted_structure_is_recovered(kind, shape, dtype, limit):
    planted = drawn(kind, *shape, dtype=dtype)
    x = planted.to_dense()
    found = NEAREST[kind](x)
    assert type(found) is kind
    assert found.dtype == dtype
    assert found.parameters == planted.parameters
    assert off(found, x) < limit


@pytest.mark.parametrize("kind", NEAREST)
def test_a_batch_is_each_of_its_matrices(kind):
    x = seeded(2, 3, 12, 8)
    both = NEAREST[kind](x)
    assert both.shape == (2, 3, 12, 8)
    each = torch.stack([torch.stack([NEAREST[kind](one).to_dense() for one in row]) for row in x])
    assert off(both, each) < 1e-12
    rows = seeded(2, 3, 5, 8, seed=1)
    assert off(both.linear(rows), rows @ each.mT) < 1e-12
    assert both.flops(5) == 6 * NEAREST[kind](x[0, 0]).flops(5)


@pytest.mark.parametrize("kind", [Monarch, Circulant, Toeplitz, BlockTensorTrain])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_nearest_cannot_be_improved(kind, shape):
    """The residual is orthogonal to every direction in which the result can move."""
    x = seeded(*shape)
    found = NEAREST[kind](x)
    rest = x - found.to_dense()
    for name, tensor in found.tensors().items():
        moved = tensor.clone().requires_grad_()
        (found.replace(found.tensors() | {name: moved}).to_dense() * rest).sum().backward()
        assert float(moved.grad.abs().max()) < 1e-10 * float(x.norm()) * max(1, float(tensor.norm()))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 9), m=st.integers(1, 9), seed=st.integers(0, 99))
def test_means_along_diagonals(n, m, seed):
    x = seeded(n, m, seed=seed)
    found = nearest_toeplitz(x)
    expected = torch.stack([x.diagonal(m - 1 - d).mean() for d in range(n + m - 1)])
    assert torch.allclose(found.diagonals, expected)
    wrapped = nearest_circulant(x, block=1)
    assert torch.allclose(wrapped.to_dense(), x)
    square = x[: min(n, m), : min(n, m)]
    k = len(square)
    ring = nearest_circulant(square).columns[0, 0]
    means = [torch.stack([square[(d + c) % k, c] for c in range(k)]).mean() for d in range(k)]
    assert torch.allclose(ring, torch.stack(means))


def test_monarch_is_the_product_of_the_paper():
    """P L Pᵀ R with block-diagonal L and R and the permutation that transposes a square grid."""
    w = Monarch(seeded(3, 3, 3), seeded(3, 3, 3, seed=1))
    turn = torch.eye(9, dtype=torch.float64).reshape(3, 3, 9).transpose(0, 1).reshape(9, 9)
    assert torch.allclose(w.to_dense(), turn @ torch.block_diag(*w.left) @ turn.mT @ torch.block_diag(*w.right))


def test_block_svd_keeps_its_tolerance_over_all_blocks():
    x = seeded(2, 3, 4, 6, 5) * torch.logspace(0, -4, 5, dtype=torch.float64)
    for tol in (0.5, 0.1, 1e-2):
        left, right = block_svd(x, tol=tol)
        errors = (left @ right - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
        assert float(errors.max()) <= tol
        if left.shape[-1] == 1:
            continue
        less = block_svd(x, left.shape[-1] - 1)
        assert float(((less[0] @ less[1] - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).max()) > tol
    left, right = block_product_svd(x, x.mT, 2)
    again = block_svd(x @ x.mT, 2)
    assert off(left @ right, again[0] @ again[1]) < 1e-12


def test_rounding_a_block_tensor_train():
    w = drawn(BlockTensorTrain, 12, 20)
    doubled = w + w
    assert doubled.rank == 4
    again = doubled.round(tol=1e-9)
    assert again.rank == 2
    assert off(again, 2 * w.to_dense()) < 1e-12
    assert again.round(tol=1e-9).rank == 2
    one = doubled.round(1)
    assert off(one, nearest_monarch(doubled.to_dense()).to_dense()) < 1e-12
    flipped = w.transpose().round(1).to_dense()
    assert off(flipped, w.round(1).to_dense().mT) < 1e-12


@pytest.mark.parametrize("interleaved", ["rows", "columns"])
def test_a_smaller_tolerance_takes_a_higher_rank(interleaved):
    x = seeded(24, 24)
    found = [nearest_block_tensor_train(x, tol=tol, blocks=(3, 4), interleaved=interleaved) for tol in (0.8, 0.3, 0)]
    assert [one.rank for one in found] == sorted(one.rank for one in found)
    assert all(off(one, x) <= tol + 1e-14 for one, tol in zip(found, (0.8, 0.3, 0), strict=True))
    assert split_blocks(x, (3, 4), interleaved).shape == (3, 4, 8, 6)


def test_sums_and_products_keep_the_structure():
    one, two = (drawn(Monarch, 12, 20, seed=s) for s in (0, 1))
    x, y = one.to_dense(), two.to_dense()
    assert isinstance(one + two, BlockTensorTrain)
    assert ((one + two) + one).rank == 3
    assert off(one + two - one, y) < 1e-12
    assert off(one * two, x * y) < 1e-12
    for kind in (Circulant, Toeplitz):
        one, two = (drawn(kind, 12, 20, seed=s) for s in (0, 1))
        x, y = one.to_dense(), two.to_dense()
        for found, expected in ((one + two, x + y), (one - 3 * two, x - 3 * y), (one * two, x * y), (-one, -x)):
            assert type(found) is kind
            assert off(found, expected) < 1e-12
        assert math.isclose(float(one.inner(two)), float((x * y).sum()), abs_tol=1e-10)
        assert math.isclose(float(one.norm()), float(x.norm()))
        where = torch.tensor([[0, 0], [11, 19], [-1, 3]])
        assert torch.equal(one.entries(where), x[where[:, 0], where[:, 1]])
        assert isinstance(one + Dense(x), Sum)
        with pytest.raises(ValueError, match="have different patterns"):
            one * Dense(x)
        with pytest.raises(ValueError, match="2 integers"):
            one.entries(torch.tensor([1, 2, 3]))
    coarse = nearest_circulant(x, block=2)
    assert isinstance(coarse + nearest_circulant(x), Sum)


@pytest.mark.parametrize("direct", [0, 2**24])
@pytest.mark.parametrize("shape", [(1, 1), (9, 1), (1, 9), (7, 12), (40, 33), (2, 5, 64, 24)])
def test_a_toeplitz_matrix_is_applied_by_transforms_and_by_windows(monkeypatch, direct, shape):
    monkeypatch.setattr(toeplitz, "DIRECT", direct)
    w = drawn(Toeplitz, *shape)
    rows, probe = (
        seeded(*shape[:-2], 3, shape[-1], seed=1).requires_grad_(),
        seeded(*shape[:-2], 3, shape[-2], seed=2),
    )
    held = w.diagonals.requires_grad_()
    found, expected = (
        torch.autograd.grad((y * probe).sum(), (rows, held)) for y in (w.linear(rows), rows @ w.to_dense().mT)
    )
    assert off(w.linear(rows), rows @ w.to_dense().mT) < 1e-12
    assert all(off(a, b) < 1e-12 for a, b in zip(found, expected, strict=True))


def test_parts_of_a_toeplitz_matrix():
    w = drawn(Toeplitz, 7, 5)
    x = w.to_dense()
    for index in ((slice(1, 4), slice(None)), (slice(None), slice(-2, None)), (slice(6, 7), slice(0, 1))):
        assert torch.equal(w[index].to_dense(), x[index])
    assert torch.equal(w[2:].to_dense(), x[2:])
    for index in (0, (0, 1), (slice(None, None, 2), slice(None)), (slice(3, 3), slice(None))):
        with pytest.raises(IndexError, match=r"slices|consecutive"):
            w[index]


def test_displacement_rank_of_what_is_known():
    """Toeplitz matrices, their inverses and the products of two have displacement ranks 2, 2 and 4."""
    for n, m in ((9, 9), (9, 6), (6, 9)):
        w = drawn(Toeplitz, n, m).to_dense()
        assert off(low_displacement(w, 2), w) < 1e-12
    w = drawn(Toeplitz, 9, 9).to_dense()
    inverse = torch.linalg.inv(w)
    assert off(low_displacement(inverse, 2), inverse) < 1e-10
    assert low_displacement(w @ w.mT, tol=1e-9).rank == 4
    assert low_displacement(w, tol=1e-9).rank <= 2
    x = seeded(9, 7)
    assert off(low_displacement(x, 7), x) < 1e-12
    both = LowDisplacement(seeded(9, 1), seeded(9, 1)) + LowDisplacement(seeded(9, 2), seeded(9, 2))
    assert both.rank == 3
    assert isinstance(both + both.transpose(), Sum)
    assert off(2 * both, 2 * both.to_dense()) < 1e-12


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (40, 40), (70, 33), (33, 70), (2, 9, 9)])
def test_orthogonal_matrices_are_products_of_reflections(shape):
    x = torch.linalg.qr(seeded(*shape).mT if shape[-2] < shape[-1] else seeded(*shape)).Q
    x = x.mT if shape[-2] < shape[-1] else x
    found = householder_product(x)
    assert found.reflections == min(shape[-2:])
    assert off(found, x) < 1e-13
    y = seeded(*shape[:-2], 5, shape[-1])
    assert off(found.linear(y), y @ x.mT) < 1e-13


@pytest.mark.parametrize("x", [torch.eye(5), -torch.eye(5), torch.eye(5).flip(0), torch.eye(6)[:, :2]], ids=str)
def test_reflections_of_signed_permutations(x):
    assert torch.allclose(householder_product(x).to_dense(), x, atol=1e-6)
    assert not x.equal(torch.eye(5)) or not householder_product(x).vectors.any()


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 8), m=st.integers(1, 8), k=st.integers(1, 9), scale=st.sampled_from([1e-200, 1.0, 1e200]))
def test_reflections_are_orthogonal_whatever_the_vectors(n, m, k, scale):
    w = Householder(scale * seeded(max(n, m), k), (n, m))
    x = w.to_dense() if n >= m else w.to_dense().mT
    assert torch.allclose(x.mT @ x, torch.eye(min(n, m), dtype=torch.float64), atol=1e-13)
    assert math.isclose(float(w.norm()), float(x.norm()))
    assert torch.allclose(w.transpose().to_dense(), w.to_dense().mT, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 17),
    m=st.integers(1, 17),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_linear_is_the_dense_product_at_every_size(kind, n, m, dtype):
    w = drawn(kind, n, m, dtype=dtype)
    x = seeded(3, m, dtype=dtype)
    expected = x @ w.to_dense().mT
    assert float((w.linear(x) - expected).norm()) <= 64 * torch.finfo(dtype).eps * float(
        w.to_dense().norm() * x.norm()
    )
    assert torch.allclose(w.rows(torch.tensor([n - 1])), w.to_dense()[-1:], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_computed_in_float32(kind):
    w, x = drawn(kind, 64, 64, dtype=torch.bfloat16), seeded(5, 64, dtype=torch.bfloat16)
    expected = x.float() @ w.to(torch.float32).to_dense().mT
    with torch.autocast("cpu", torch.bfloat16):
        found = w.linear(x)
    assert found.dtype == torch.bfloat16
    assert off(found.float(), expected) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_operations_grow_slower_than_those_of_dense(kind):
    few, many = (small(kind, n) for n in (256, 4096))
    exponent = math.log(many.flops(64) / few.flops(64)) / math.log(16)
    assert exponent < 1.6
    assert many.flops(64) < 2 * 64 * 4096**2 / 10


def small(kind, n):
    return Householder(seeded(n, 16), (n, n)) if kind is Householder else drawn(kind, n, n)


def test_lengths_of_transforms():
    for n in range(1, 400):
        found = fast_length(n)
        rest = found
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        assert found >= n
        assert (rest, found % 2) == (1, 0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Monarch(seeded(2, 3, 4), seeded(4, 3, 5)), r"left of shape \(2, 3, 4\)"),
        (lambda: Monarch(seeded(2, 3, 4), seeded(4, 2, 5), "blocks"), "interleaved='blocks'"),
        (lambda: BlockTensorTrain(seeded(2, 3, 4, 1), seeded(4, 2, 2, 5)), r"right of shape \(4, 2, 2, 5\)"),
        (lambda: drawn(BlockTensorTrain, 6, 4).round(3), "rank=3 exceeds"),
        (lambda: drawn(BlockTensorTrain, 6, 4).round(), "exactly one of rank, tol"),
        (lambda: Circulant(seeded(2, 3)), r"columns\[:, None, None\]"),
        (lambda: Toeplitz(seeded(3), 4), "width=4"),
        (lambda: LowDisplacement(seeded(3, 2), seeded(3, 1)), "one batch and one r"),
        (lambda: LowDisplacement(seeded(3, 2), seeded(3, 2), (1.0,)), "two numbers"),
        (lambda: Householder(seeded(3, 2), (2, 2)), r"size=\(2, 2\)"),
        (lambda: nearest_monarch(seeded(6, 8), blocks=(4, 2)), r"does not divide 6 rows; choose from \[1, 2, 3, 6\]"),
        (lambda: nearest_monarch(seeded(6, 8), blocks=3), "two numbers"),
        (lambda: nearest_block_tensor_train(seeded(6, 8), 4), "rank=4 exceeds what a block"),
        (lambda: nearest_block_tensor_train(seeded(6, 8)), "exactly one of rank, tol"),
        (lambda: nearest_circulant(seeded(6, 8), block=3), "choose a divisor of 2"),
        (lambda: low_displacement(seeded(6, 8), 7), "rank=7 exceeds"),
        (lambda: householder_product(seeded(6, 4)), "no orthonormal columns"),
        (lambda: householder_product(torch.zeros(6, 4)), "no orthonormal columns"),
        (lambda: householder_product(float("nan") * torch.eye(3)), "9 NaN"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()
