"""Tensor trains and tensor rings."""
