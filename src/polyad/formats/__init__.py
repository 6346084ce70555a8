"""The noun: tensors stored as something smaller than themselves."""

from polyad.formats._format import Format, kinds
from polyad.formats.block_term import BlockTerm
from polyad.formats.cp import CP
from polyad.formats.dense import Dense
from polyad.formats.hadamard import Hadamard
from polyad.formats.khatri_rao import KhatriRao
from polyad.formats.kronecker import Kronecker
from polyad.formats.low_rank import LowRank
from polyad.formats.product import Product
from polyad.formats.quantized import Quantized
from polyad.formats.sparse import Sparse
from polyad.formats.sum import Sum
from polyad.formats.tensor_train import TensorTrain
from polyad.formats.tubal import Tubal
from polyad.formats.tucker import Tucker

__all__ = [
    "CP", "BlockTerm", "Dense", "Format", "Hadamard", "KhatriRao", "Kronecker", "LowRank", "Product", "Quantized",
    "Sparse", "Sum", "TensorTrain", "Tubal", "Tucker", "kinds",
]  # fmt: skip
