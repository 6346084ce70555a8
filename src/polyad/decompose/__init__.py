"""From a tensor to a format, by itself alone."""

from polyad.decompose.cp_als import cp_als
from polyad.decompose.hooi import hooi
from polyad.decompose.householder_product import householder_product
from polyad.decompose.low_displacement import low_displacement
from polyad.decompose.nearest_block_tensor_train import nearest_block_tensor_train
from polyad.decompose.nearest_circulant import nearest_circulant
from polyad.decompose.nearest_monarch import nearest_monarch
from polyad.decompose.nearest_toeplitz import nearest_toeplitz
from polyad.decompose.spm import spm
from polyad.decompose.svd import svd
from polyad.decompose.tt_svd import tt_svd

__all__ = [
    "cp_als", "hooi", "householder_product", "low_displacement", "nearest_block_tensor_train", "nearest_circulant",
    "nearest_monarch", "nearest_toeplitz", "spm", "svd", "tt_svd",
]  # fmt: skip
