"""Attention layers, one in each file."""
