"""From a tensor to a format, by itself alone."""

from polyad.decompose.block_term import block_term
from polyad.decompose.chebyshev_tucker import ChebyshevTucker, chebyshev_tucker
from polyad.decompose.core_shapes import core_shapes
from polyad.decompose.cp_als import cp_als
from polyad.decompose.gcp import gcp
from polyad.decompose.greedy_tn import greedy_tn, grow_network
from polyad.decompose.hadamard_als import hadamard_als
from polyad.decompose.hierarchical_tucker import hierarchical_tucker
from polyad.decompose.hooi import hooi
from polyad.decompose.householder_product import householder_product
from polyad.decompose.khatri_rao_als import khatri_rao_als
from polyad.decompose.kronecker_als import kronecker_als
from polyad.decompose.kronecker_svd import kronecker_svd
from polyad.decompose.low_displacement import low_displacement
from polyad.decompose.masked_als import masked_als
from polyad.decompose.nearest_block_tensor_train import nearest_block_tensor_train
from polyad.decompose.nearest_circulant import nearest_circulant
from polyad.decompose.nearest_monarch import nearest_monarch
from polyad.decompose.nearest_toeplitz import nearest_toeplitz
from polyad.decompose.nmf import nmf
from polyad.decompose.nonnegative_cp import nonnegative_cp
from polyad.decompose.ranks import choose_rank
from polyad.decompose.sparse_cp_als import sparse_cp_als
from polyad.decompose.spm import spm
from polyad.decompose.st_hosvd import st_hosvd
from polyad.decompose.svd import svd
from polyad.decompose.t_svd import t_svd
from polyad.decompose.tnale import Structure, local_enumeration, tnale
from polyad.decompose.tr_als import tr_als
from polyad.decompose.tr_svd import tr_svd
from polyad.decompose.trg_ising import trg_ising
from polyad.decompose.tt_als import tt_als
from polyad.decompose.tt_cross import tt_cross
from polyad.decompose.tt_matrix import tt_matrix
from polyad.decompose.tt_svd import tt_svd
from polyad.decompose.ttn_bug import ttn_bug

__all__ = [
    "ChebyshevTucker", "Structure", "block_term", "chebyshev_tucker", "choose_rank", "core_shapes", "cp_als", "gcp",
    "greedy_tn", "grow_network", "hadamard_als", "hierarchical_tucker", "hooi", "householder_product",
    "khatri_rao_als", "kronecker_als", "kronecker_svd", "local_enumeration", "low_displacement", "masked_als",
    "nearest_block_tensor_train", "nearest_circulant", "nearest_monarch", "nearest_toeplitz", "nmf",
    "nonnegative_cp", "sparse_cp_als", "spm", "st_hosvd", "svd", "t_svd", "tnale", "tr_als",
    "tr_svd", "trg_ising", "tt_als", "tt_cross", "tt_matrix", "tt_svd", "ttn_bug",
]  # fmt: skip
