"""Algorithms of numerical linear algebra that stand alone: sketches, streams, regression, kernels and trees."""

from polyad.algorithms.coordinated_sampling import CoordinatedSketch, coordinated_sampling
from polyad.algorithms.incremental_mixture import IncrementalMixture
from polyad.algorithms.kernel_matvec import kernel_matvec, near_pairs
from polyad.algorithms.kronecker_projection import KroneckerProjection, private_median
from polyad.algorithms.lasso import lasso
from polyad.algorithms.maxvol import maxvol
from polyad.algorithms.meta_factorization import MetaFactors, meta_factorization
from polyad.algorithms.random_pivoting import Pivoted, coupling, random_pivoting
from polyad.algorithms.sketched_lstsq import linf_rows, sketched_lstsq
from polyad.algorithms.stream import Stream
from polyad.algorithms.streaming_eigenvector import StreamingEigenvector
from polyad.algorithms.tensor_sketch import TensorSRHT
from polyad.algorithms.tree_field import TreeField, exponential, smooth
from polyad.algorithms.updating_svd import UpdatingSVD

__all__ = [
    "CoordinatedSketch", "IncrementalMixture", "KroneckerProjection", "MetaFactors", "Pivoted", "Stream",
    "StreamingEigenvector", "TensorSRHT", "TreeField", "UpdatingSVD", "coordinated_sampling", "coupling",
    "exponential", "kernel_matvec", "lasso", "linf_rows", "maxvol", "meta_factorization", "near_pairs",
    "private_median", "random_pivoting", "sketched_lstsq", "smooth",
]  # fmt: skip
