"""Least-squares pieces that alternating methods share."""
