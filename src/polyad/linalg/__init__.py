"""Matrix and tensor functions that two or more methods use."""

from polyad.linalg.block_svd import block_product_svd, block_svd
from polyad.linalg.metric import principal, roots, tails
from polyad.linalg.modes import mode_product, unfold
from polyad.linalg.scaling import near_unit, single_or_double
from polyad.linalg.sketch import SRHT, Gaussian, SparseSign, count_sketch, walsh_hadamard
from polyad.linalg.svd import evenly, left_singular, truncated_svd

__all__ = [
    "SRHT",
    "Gaussian",
    "SparseSign",
    "block_product_svd",
    "block_svd",
    "count_sketch",
    "evenly",
    "left_singular",
    "mode_product",
    "near_unit",
    "principal",
    "roots",
    "single_or_double",
    "tails",
    "truncated_svd",
    "unfold",
    "walsh_hadamard",
]  # fmt: skip
