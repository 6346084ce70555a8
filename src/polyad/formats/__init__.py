"""The noun: tensors stored as something smaller than themselves."""

from polyad.formats._format import Format, kinds
from polyad.formats.block_tensor_train import BlockTensorTrain
from polyad.formats.block_term import BlockTerm
from polyad.formats.circulant import Circulant
from polyad.formats.convert import convert
from polyad.formats.cp import CP
from polyad.formats.dense import Dense
from polyad.formats.files import load_format, save_format
from polyad.formats.hadamard import Hadamard
from polyad.formats.householder import Householder
from polyad.formats.khatri_rao import KhatriRao
from polyad.formats.kronecker import Kronecker
from polyad.formats.low_displacement import LowDisplacement
from polyad.formats.low_rank import LowRank
from polyad.formats.monarch import Monarch
from polyad.formats.network import Network
from polyad.formats.product import Product
from polyad.formats.quantized import Quantized
from polyad.formats.sparse import Sparse
from polyad.formats.sum import Sum
from polyad.formats.symmetric_cp import SymmetricCP
from polyad.formats.tensor_ring import TensorRing
from polyad.formats.tensor_train import TensorTrain
from polyad.formats.toeplitz import Toeplitz
from polyad.formats.train_matrix import TrainMatrix
from polyad.formats.tree_network import TreeNetwork
from polyad.formats.tubal import Tubal
from polyad.formats.tucker import Tucker

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
    "LowDisplacement",
    "LowRank",
    "Monarch",
    "Network",
    "Product",
    "Quantized",
    "Sparse",
    "Sum",
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
]  # fmt: skip
