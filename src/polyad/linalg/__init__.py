"""Matrix and tensor functions that two or more methods use."""

from polyad.linalg.block_svd import block_product_svd, block_svd
from polyad.linalg.maxvol import maxvol
from polyad.linalg.metric import principal, roots, tails
from polyad.linalg.modes import mode_product, unfold
from polyad.linalg.scaling import near_unit, single_or_double
from polyad.linalg.sketch import SRHT, Gaussian, SparseSign, count_sketch, walsh_hadamard
from polyad.linalg.subspace import krylov_basis, leading, singular_basis
from polyad.linalg.svd import evenly, left_singular, truncated_svd
from polyad.linalg.tensor_sketch import TensorSRHT

__all__ = [
    "SRHT",
    "Gaussian",
    "SparseSign",
    "TensorSRHT",
    "block_product_svd",
    "block_svd",
    "count_sketch",
    "evenly",
    "krylov_basis",
    "leading",
    "left_singular",
    "maxvol",
    "mode_product",
    "near_unit",
    "principal",
    "roots",
    "single_or_double",
    "singular_basis",
    "tails",
    "truncated_svd",
    "unfold",
    "walsh_hadamard",
]  # fmt: skip
