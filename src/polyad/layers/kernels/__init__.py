"""Fast products of weights with rows, chosen by measurement."""

from polyad.layers.kernels.models import kernel_rows, prepare_layers
from polyad.layers.kernels.pack import check_kernels
from polyad.layers.kernels.product import KernelProduct, product

__all__ = ["KernelProduct", "check_kernels", "kernel_rows", "prepare_layers", "product"]
