"""Tensors whose numbers are stored in fewer bits or fewer places."""
