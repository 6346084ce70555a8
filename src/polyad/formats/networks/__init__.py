"""Formats that are tensor networks: one einsum from which the rest follows."""
