"""Pure tensor functions that two or more methods need."""

from polyad.linalg.block_svd import block_product_svd, block_svd
from polyad.linalg.maxvol import maxvol
from polyad.linalg.metric import principal, roots, tails
from polyad.linalg.modes import mode_product, unfold
from polyad.linalg.scaling import near_unit
from polyad.linalg.subspace import krylov_basis, leading, singular_basis
from polyad.linalg.svd import left_singular, truncated_svd
from polyad.linalg.tree_field import TreeField, exponential, smooth

__all__ = [
    "TreeField", "block_product_svd", "block_svd", "exponential", "krylov_basis", "leading", "left_singular",
    "maxvol", "mode_product", "near_unit", "principal", "roots", "singular_basis", "smooth", "tails",
    "truncated_svd", "unfold",
]  # fmt: skip
