"""Tensor expressions: parsed, planned once by a path optimiser, evaluated pair by pair."""

from polyad.einsum.expression import contract, operations

__all__ = ["contract", "operations"]
