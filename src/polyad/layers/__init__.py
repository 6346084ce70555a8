"""Modules that hold a format."""

from polyad.layers.factors import Factors
from polyad.layers.linear import Conv, Embedding, Linear

__all__ = ["Conv", "Embedding", "Factors", "Linear"]
