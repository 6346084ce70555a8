"""From a tensor to a format, by itself alone."""

from polyad.decompose.block_term import block_term
from polyad.decompose.chebyshev_tucker import ChebyshevTucker, chebyshev_tucker
from polyad.decompose.hadamard_als import hadamard_als
from polyad.decompose.hooi import hooi
from polyad.decompose.khatri_rao_als import khatri_rao_als
from polyad.decompose.kronecker_als import kronecker_als
from polyad.decompose.kronecker_svd import kronecker_svd
from polyad.decompose.masked_als import masked_als
from polyad.decompose.svd import svd
from polyad.decompose.t_svd import t_svd

__all__ = [
    "ChebyshevTucker", "block_term", "chebyshev_tucker", "hadamard_als", "hooi", "khatri_rao_als", "kronecker_als",
    "kronecker_svd", "masked_als", "svd", "t_svd",
]  # fmt: skip
