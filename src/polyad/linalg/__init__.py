"""Pure tensor functions that two or more methods need, and methods of plain linear algebra."""

from polyad.linalg.coordinated_sampling import CoordinatedSketch, coordinated_sampling
from polyad.linalg.incremental_mixture import IncrementalMixture
from polyad.linalg.kernel_matvec import kernel_matvec, near_pairs
from polyad.linalg.kronecker_projection import KroneckerProjection, private_median
from polyad.linalg.lasso import lasso
from polyad.linalg.meta_factorization import MetaFactors, meta_factorization
from polyad.linalg.metric import principal, roots, tails
from polyad.linalg.random_pivoting import Pivoted, coupling, random_pivoting
from polyad.linalg.sketch import SRHT, Gaussian, SparseSign, count_sketch, walsh_hadamard
from polyad.linalg.sketched_lstsq import linf_rows, sketched_lstsq
from polyad.linalg.streaming_eigenvector import StreamingEigenvector
from polyad.linalg.svd import left_singular, truncated_svd
from polyad.linalg.tensor_sketch import TensorSRHT
from polyad.linalg.updating_svd import UpdatingSVD

__all__ = [
    "SRHT", "CoordinatedSketch", "Gaussian", "IncrementalMixture", "KroneckerProjection", "MetaFactors", "Pivoted",
    "SparseSign", "StreamingEigenvector", "TensorSRHT", "UpdatingSVD", "coordinated_sampling", "count_sketch",
    "coupling", "kernel_matvec", "lasso", "left_singular", "linf_rows", "meta_factorization", "near_pairs",
    "principal", "private_median", "random_pivoting", "roots", "sketched_lstsq", "tails", "truncated_svd",
    "walsh_hadamard",
]  # fmt: skip
