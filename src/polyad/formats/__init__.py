"""Formats: tensors stored as something smaller than themselves."""

from polyad.formats.composed.product import Product
from polyad.formats.composed.sum import Sum
from polyad.formats.convert import convert
from polyad.formats.files import load_format, save_format
from polyad.formats.format import Format, kinds
from polyad.formats.networks.block_term import BlockTerm
from polyad.formats.networks.cp import CP
from polyad.formats.networks.hadamard import Hadamard
from polyad.formats.networks.khatri_rao import KhatriRao
from polyad.formats.networks.kronecker import Kronecker
from polyad.formats.networks.low_rank import LowRank
from polyad.formats.networks.network import Network
from polyad.formats.networks.symmetric_cp import SymmetricCP
from polyad.formats.networks.tensor_ring import TensorRing
from polyad.formats.networks.tensor_train import TensorTrain
from polyad.formats.networks.train_matrix import TrainMatrix
from polyad.formats.networks.tree_network import TreeNetwork
from polyad.formats.networks.tucker import Tucker
from polyad.formats.stored.dense import Dense
from polyad.formats.stored.levels import Levels
from polyad.formats.stored.quantized import Quantized
from polyad.formats.stored.sparse import Sparse
from polyad.formats.stored.stack import stack_rows
from polyad.formats.stored.superblocks import Superblocks
from polyad.formats.structured.block_tensor_train import BlockTensorTrain
from polyad.formats.structured.circulant import Circulant
from polyad.formats.structured.householder import Householder
from polyad.formats.structured.low_displacement import LowDisplacement
from polyad.formats.structured.monarch import Monarch
from polyad.formats.structured.toeplitz import Toeplitz
from polyad.formats.structured.tubal import Tubal

__all__ = [
    "CP",
    "BlockTensorTrain",
    "BlockTerm",
    "Circulant",
    "Dense",
    "Format",
    "Hadamard",
    "Householder",
    "KhatriRao",
    "Kronecker",
    "Levels",
    "LowDisplacement",
    "LowRank",
    "Monarch",
    "Network",
    "Product",
    "Quantized",
    "Sparse",
    "Sum",
    "Superblocks",
    "SymmetricCP",
    "TensorRing",
    "TensorTrain",
    "Toeplitz",
    "TrainMatrix",
    "TreeNetwork",
    "Tubal",
    "Tucker",
    "convert",
    "kinds",
    "load_format",
    "save_format",
    "stack_rows",
]  # fmt: skip
