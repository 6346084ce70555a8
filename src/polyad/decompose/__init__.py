"""Decompositions: functions that turn a tensor into a format."""

from polyad.decompose.cp.cp_als import cp_als
from polyad.decompose.cp.gcp import gcp
from polyad.decompose.cp.nonnegative_cp import nonnegative_cp
from polyad.decompose.cp.parafac2 import Parafac2, parafac2
from polyad.decompose.cp.sparse_cp_als import sparse_cp_als
from polyad.decompose.cp.spm import spm
from polyad.decompose.matrices.hadamard_als import hadamard_als
from polyad.decompose.matrices.householder_product import householder_product
from polyad.decompose.matrices.khatri_rao_als import khatri_rao_als
from polyad.decompose.matrices.kronecker_als import kronecker_als
from polyad.decompose.matrices.kronecker_svd import kronecker_svd
from polyad.decompose.matrices.low_displacement import low_displacement
from polyad.decompose.matrices.masked_als import masked_als
from polyad.decompose.matrices.nearest_block_tensor_train import nearest_block_tensor_train
from polyad.decompose.matrices.nearest_circulant import nearest_circulant
from polyad.decompose.matrices.nearest_monarch import nearest_monarch
from polyad.decompose.matrices.nearest_toeplitz import nearest_toeplitz
from polyad.decompose.matrices.nmf import nmf
from polyad.decompose.matrices.svd import svd
from polyad.decompose.matrices.t_svd import t_svd
from polyad.decompose.networks.greedy_tn import greedy_tn, grow_network
from polyad.decompose.networks.hierarchical_tucker import hierarchical_tucker
from polyad.decompose.networks.tnale import Structure, local_enumeration, tnale
from polyad.decompose.networks.trg_ising import trg_ising
from polyad.decompose.networks.ttn_bug import ttn_bug
from polyad.decompose.ranks.choose_rank import choose_rank
from polyad.decompose.ranks.core_shapes import core_shapes
from polyad.decompose.trains.tr_als import tr_als
from polyad.decompose.trains.tr_svd import tr_svd
from polyad.decompose.trains.tt_als import tt_als
from polyad.decompose.trains.tt_cross import tt_cross
from polyad.decompose.trains.tt_matrix import tt_matrix
from polyad.decompose.trains.tt_svd import tt_svd
from polyad.decompose.tucker.block_term import block_term
from polyad.decompose.tucker.chebyshev_tucker import ChebyshevTucker, chebyshev_tucker
from polyad.decompose.tucker.hooi import hooi
from polyad.decompose.tucker.nonnegative_tucker import nonnegative_tucker
from polyad.decompose.tucker.st_hosvd import st_hosvd

__all__ = [
    "ChebyshevTucker", "Parafac2", "Structure", "block_term", "chebyshev_tucker", "choose_rank", "core_shapes",
    "cp_als", "gcp", "greedy_tn", "grow_network", "hadamard_als", "hierarchical_tucker", "hooi",
    "householder_product", "khatri_rao_als", "kronecker_als", "kronecker_svd", "local_enumeration",
    "low_displacement", "masked_als", "nearest_block_tensor_train", "nearest_circulant", "nearest_monarch",
    "nearest_toeplitz", "nmf", "nonnegative_cp", "nonnegative_tucker", "parafac2", "sparse_cp_als", "spm",
    "st_hosvd", "svd", "t_svd", "tnale", "tr_als", "tr_svd", "trg_ising", "tt_als", "tt_cross", "tt_matrix",
    "tt_svd", "ttn_bug",
]  # fmt: skip
