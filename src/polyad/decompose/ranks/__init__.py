"""Ranks from spectra, tolerances and budgets, and formats compared at equal size."""

from polyad.decompose.ranks.choose_rank import choose_rank
from polyad.decompose.ranks.core_shapes import core_shapes

__all__ = ["choose_rank", "core_shapes"]
