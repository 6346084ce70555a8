"""Factorisations, rules for blocks and rescalings, one a file."""
