"""Quantisers, one a file."""
