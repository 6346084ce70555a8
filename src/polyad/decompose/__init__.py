"""From a tensor to a format, by itself alone."""

from polyad.decompose.gcp import gcp
from polyad.decompose.hooi import hooi
from polyad.decompose.householder_product import householder_product
from polyad.decompose.low_displacement import low_displacement
from polyad.decompose.nearest_block_tensor_train import nearest_block_tensor_train
from polyad.decompose.nearest_circulant import nearest_circulant
from polyad.decompose.nearest_monarch import nearest_monarch
from polyad.decompose.nearest_toeplitz import nearest_toeplitz
from polyad.decompose.nmf import nmf
from polyad.decompose.nonnegative_cp import nonnegative_cp
from polyad.decompose.sparse_cp_als import sparse_cp_als
from polyad.decompose.svd import svd
from polyad.decompose.tt_svd import tt_svd

__all__ = [
    "gcp", "hooi", "householder_product", "low_displacement", "nearest_block_tensor_train", "nearest_circulant",
    "nearest_monarch", "nearest_toeplitz", "nmf", "nonnegative_cp", "sparse_cp_als", "svd", "tt_svd",
]  # fmt: skip
