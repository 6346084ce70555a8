"""Transforms of gradients, one in each file."""
