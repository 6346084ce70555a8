"""Structured matrices that are nearest to a matrix, or are it, against dense computations in float64."""

import math

import pytest
import torch

from polyad.decompose import (
    householder_product,
    low_displacement,
    nearest_block_tensor_train,
    nearest_circulant,
    nearest_monarch,
    nearest_toeplitz,
    tt_matrix,
)
from polyad.decompose.matrices.householder_product import PANEL


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(result, expected, tol=1e-9):
    torch.testing.assert_close(result, expected, rtol=tol, atol=tol)


SHAPES = [(6, 6), (4, 8), (9, 3), (1, 5), (5, 1), (6, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_nearest_toeplitz_matrix_has_the_means_of_the_diagonals(shape):
    x, (n, m) = seeded(2, *shape), shape
    i, j = torch.meshgrid(torch.arange(n), torch.arange(m), indexing="ij")
    expected = torch.empty_like(x)
    for offset in range(1 - n, m):
        on = j - i == offset
        expected[:, on] = x[:, on].mean(-1, keepdim=True)
    near(nearest_toeplitz(x).to_dense(), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_nearest_circulant_blocks_have_the_means_of_diagonals_that_wrap_around(shape):
    x, (n, m) = seeded(2, *shape), shape
    common = math.gcd(n, m)
    for block in [None, *(b for b in range(1, common + 1) if common % b == 0)]:
        b = common if block is None else block
        i, j = torch.meshgrid(torch.arange(n), torch.arange(m), indexing="ij")
        expected = torch.empty_like(x)
        for row in range(n // b):
            for column in range(m // b):
                for offset in range(b):
                    on = (i // b == row) & (j // b == column) & ((i - j) % b == offset)
                    expected[:, on] = x[:, on].mean(-1, keepdim=True)
        near(nearest_circulant(x, block=block).to_dense(), expected)
    with pytest.raises(ValueError, match=f"block={common + 1} does not divide x"):
        nearest_circulant(x, block=common + 1)


@pytest.mark.parametrize("interleaved", ["rows", "columns"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_block_of_a_block_tensor_train_is_the_best_of_its_rank(interleaved, rank):
    """Blocks of rows (or columns) in steps, and of columns (or rows) that stand together."""
    x, (J, K) = seeded(12, 15), (4, 3)
    fit = nearest_block_tensor_train(x, rank, blocks=(J, K), interleaved=interleaved).to_dense()
    expected = torch.empty_like(x)
    for j in range(J):
        for k in range(K):
            rows = slice(j, None, J) if interleaved == "rows" else slice(j * 3, (j + 1) * 3)
            columns = slice(k * 5, (k + 1) * 5) if interleaved == "rows" else slice(k, None, K)
            u, s, v = torch.linalg.svd(x[rows, columns], full_matrices=False)
            expected[rows, columns] = u[:, :rank] * s[:rank] @ v[:rank]
    near(fit, expected)
    if rank == 1:
        near(nearest_monarch(x, blocks=(J, K), interleaved=interleaved).to_dense(), expected)
    with pytest.raises(ValueError, match=r"^rank=4 exceeds what a block of shape \(3, 5\) has"):
        nearest_block_tensor_train(x, 4, blocks=(J, K), interleaved=interleaved)


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("modes", [((2, 3, 2), (3, 1, 4)), ((4, 3), (2, 6)), ((1, 12), (12, 1))])
def test_a_train_of_a_matrix_pairs_the_factors_of_rows_and_columns(batch, modes):
    factors = [seeded(*((2,) if batch else ()), o, i, seed=k) for k, (o, i) in enumerate(zip(*modes, strict=True))]
    x = factors[0]
    for factor in factors[1:]:  # a Kronecker product has bonds of one in these modes
        x = torch.einsum("...ab,...cd->...acbd", x, factor)
        x = x.flatten(-2).flatten(-3, -2)
    fit = tt_matrix(x, tol=1e-10, modes=modes, batch=batch)
    near(fit.to_dense(), x)
    assert set(fit.rank) == {1}
    near(tt_matrix(seeded(12, 12), tol=0.0, modes=modes).to_dense(), seeded(12, 12))
    for wrong in (((2, 3), (3, 4)), ((2, 6), (2, 3, 2)), ((2, 6), (5, 2))):
        with pytest.raises(ValueError, match="do not split the 12 rows and 12 columns"):
            tt_matrix(seeded(12, 12), 1, modes=wrong)


def displacement(x, e, f):
    """``Z_e x - x Z_f`` with shifts down by one row, of whose corners e and f come round."""
    n, m = x.shape
    Z = [torch.diag(torch.ones(k - 1, dtype=torch.float64), -1) for k in (n, m)]
    Z[0][0, -1] += e
    Z[1][0, -1] += f
    return Z[0] @ x - x @ Z[1]


@pytest.mark.parametrize(("shape", "shifts"), [((6, 6), (1, -1)), ((8, 5), (1, 0)), ((5, 8), (0, 1))])
def test_low_displacement_cuts_the_displacement_to_its_leading_triples(shape, shifts):
    x = 100 * seeded(*shape)
    for rank in range(1, min(shape) + 1):
        fit = low_displacement(x, rank)
        assert fit.shifts == shifts
        u, s, v = torch.linalg.svd(displacement(x, *shifts), full_matrices=False)
        near(displacement(fit.to_dense(), *shifts), u[:, :rank] * s[:rank] @ v[:rank], 1e-8)
    near(low_displacement(x, min(shape)).to_dense(), x, 1e-8)
    errors = [float((low_displacement(x, r).to_dense() - x).norm() / x.norm()) for r in range(1, min(shape) + 1)]
    for tol in (0.9, 0.5, 0.2, 1e-9):
        rank = low_displacement(x, tol=tol).rank
        assert errors[rank - 1] <= tol
        assert rank == 1 or errors[rank - 2] > tol
    with pytest.raises(ValueError, match=rf"^rank={min(shape) + 1} exceeds what the displacement"):
        low_displacement(x, min(shape) + 1)


@pytest.mark.parametrize(
    "shape", [(5, 5), (7, 3), (3, 7), (PANEL + 9, PANEL + 5), (2 * PANEL + 3, 2 * PANEL + 3), (1, 1)]
)
def test_reflections_multiply_to_the_orthogonal_matrix(shape):
    x = torch.linalg.qr(seeded(2, max(shape), min(shape))).Q
    x = x if shape[0] >= shape[1] else x.mT
    fit = householder_product(x)
    near(fit.to_dense(), x, 1e-10)
    if shape[0] >= shape[1]:
        vectors = next(t for t in fit.tensors().values())
        assert not torch.triu(vectors, 1).any()
    near(householder_product(-x).to_dense(), -x, 1e-10)


def test_nothing_is_reflected_where_nothing_is_to_be():
    eye = torch.eye(6, 4, dtype=torch.float64)
    fit = householder_product(eye)
    assert not any(t.any() for t in fit.tensors().values())
    near(fit.to_dense(), eye)
    flipped = eye.clone()
    flipped[2, 2] = -1
    near(householder_product(flipped).to_dense(), flipped)
    close = torch.linalg.qr(eye + 1e-9 * seeded(6, 4)).Q.clone()
    near(householder_product(close * close.diagonal().sign()).to_dense(), close * close.diagonal().sign(), 1e-14)
    with pytest.raises(ValueError, match="their inner products are off by 1"):
        householder_product(2**0.5 * eye)
