"""Ranks from spectra, tolerances and budgets, and formats compared at equal size."""
