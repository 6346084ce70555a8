"""Fast products of weights with rows, chosen by measurement."""

from polyad.layers.kernels.product import Product, product

__all__ = ["Product", "product"]
