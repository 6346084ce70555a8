"""Sums of outer products."""
