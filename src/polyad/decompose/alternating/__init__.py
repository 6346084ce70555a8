"""Least-squares steps that alternating methods share."""
