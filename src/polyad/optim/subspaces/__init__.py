"""Choices of coordinates for gradients, one a file."""
