"""Attention layers, one a file."""
