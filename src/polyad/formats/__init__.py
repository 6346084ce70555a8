"""The noun: tensors stored as something smaller than themselves."""

from polyad.formats._format import Format, kinds
from polyad.formats.cp import CP
from polyad.formats.dense import Dense
from polyad.formats.kronecker import Kronecker
from polyad.formats.low_rank import LowRank
from polyad.formats.product import Product
from polyad.formats.quantized import Quantized
from polyad.formats.sparse import Sparse
from polyad.formats.sum import Sum
from polyad.formats.tensor_train import TensorTrain
from polyad.formats.train_matrix import TrainMatrix
from polyad.formats.tucker import Tucker

__all__ = [
    "CP", "Dense", "Format", "Kronecker", "LowRank", "Product", "Quantized", "Sparse", "Sum", "TensorTrain",
    "TrainMatrix", "Tucker", "kinds",
]  # fmt: skip
