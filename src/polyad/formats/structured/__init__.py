"""Matrices of a fixed pattern or structure."""
