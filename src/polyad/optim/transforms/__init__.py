"""Transforms of gradients, one a file."""
