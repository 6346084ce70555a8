"""Keys and values of past tokens, stored as something smaller than themselves."""

from polyad.cache.host import Codec, CodecLayer, cache_for
from polyad.cache.kivi import Kivi

__all__ = ["Codec", "CodecLayer", "Kivi", "cache_for"]
