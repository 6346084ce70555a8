"""Sums and products of formats."""
