"""Pure tensor functions that two or more methods need."""

from polyad.linalg.block_svd import block_product_svd, block_svd
from polyad.linalg.coordinated_sampling import CoordinatedSketch, coordinated_sampling
from polyad.linalg.incremental_mixture import IncrementalMixture
from polyad.linalg.kernel_matvec import kernel_matvec, near_pairs
from polyad.linalg.kronecker_projection import KroneckerProjection, private_median
from polyad.linalg.lasso import lasso
from polyad.linalg.maxvol import maxvol
from polyad.linalg.meta_factorization import MetaFactors, meta_factorization
from polyad.linalg.metric import principal, roots, tails
from polyad.linalg.modes import mode_product, unfold
from polyad.linalg.random_pivoting import Pivoted, coupling, random_pivoting
from polyad.linalg.scaling import near_unit
from polyad.linalg.sketch import SRHT, Gaussian, SparseSign, count_sketch, walsh_hadamard
from polyad.linalg.sketched_lstsq import linf_rows, sketched_lstsq
from polyad.linalg.streaming_eigenvector import StreamingEigenvector
from polyad.linalg.subspace import krylov_basis, leading, singular_basis
from polyad.linalg.svd import evenly, left_singular, truncated_svd
from polyad.linalg.tensor_sketch import TensorSRHT
from polyad.linalg.tree_field import TreeField, exponential, smooth
from polyad.linalg.updating_svd import UpdatingSVD

__all__ = [
    "SRHT",
    "CoordinatedSketch",
    "Gaussian",
    "IncrementalMixture",
    "KroneckerProjection",
    "MetaFactors",
    "Pivoted",
    "SparseSign",
    "StreamingEigenvector",
    "TensorSRHT",
    "TreeField",
    "UpdatingSVD",
    "block_product_svd",
    "block_svd",
    "coordinated_sampling",
    "count_sketch",
    "coupling",
    "evenly",
    "exponential",
    "kernel_matvec",
    "krylov_basis",
    "lasso",
    "leading",
    "left_singular",
    "linf_rows",
    "maxvol",
    "meta_factorization",
    "mode_product",
    "near_pairs",
    "near_unit",
    "principal",
    "private_median",
    "random_pivoting",
    "roots",
    "singular_basis",
    "sketched_lstsq",
    "smooth",
    "tails",
    "truncated_svd",
    "unfold",
    "walsh_hadamard",
]  # fmt: skip
