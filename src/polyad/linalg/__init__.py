"""Pure tensor functions that two or more methods need."""

from polyad.linalg.metric import principal, roots, tails
from polyad.linalg.subspace import leading, singular_basis
from polyad.linalg.svd import left_singular, truncated_svd

__all__ = ["leading", "left_singular", "principal", "roots", "singular_basis", "tails", "truncated_svd"]
