"""Statistics of a layer's inputs and outputs: the record alone, which ``polyad.models`` collects."""

from polyad.statistics.record import Moments, Stats, required

__all__ = ["Moments", "Stats", "required"]
