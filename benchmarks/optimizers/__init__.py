"""Optimisers on a small decoder: state held, time of a step, and held-out loss at equal steps."""
