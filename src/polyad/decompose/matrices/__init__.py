"""Decompositions of matrices, and of tensors as matrices of tubes."""
