"""Pure tensor functions that two or more methods need."""

from polyad.linalg.block_svd import block_product_svd, block_svd
from polyad.linalg.metric import principal, roots, tails
from polyad.linalg.svd import left_singular, truncated_svd

__all__ = ["block_product_svd", "block_svd", "left_singular", "principal", "roots", "tails", "truncated_svd"]
