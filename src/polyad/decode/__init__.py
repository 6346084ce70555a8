"""Generating text fast: a loop of plain torch calls for every decoder whose structure it can read."""

from polyad.decode.caches import cache_by_name
from polyad.decode.default_dtype import default_dtype
from polyad.decode.generate import generate
from polyad.decode.generation import Generation

__all__ = ["Generation", "cache_by_name", "default_dtype", "generate"]
