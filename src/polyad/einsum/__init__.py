"""Tensor expressions: parsed, planned once by a path optimiser, evaluated pair by pair."""

from polyad.einsum.expression import contract, groups, operations, symbol

__all__ = ["contract", "groups", "operations", "symbol"]
