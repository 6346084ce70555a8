"""Caches of keys and values that are smaller: one host, and one way of storing a file."""

from polyad.cache.codec import Codec, Place
from polyad.cache.host import HeldCache, cache_for, remembering
from polyad.cache.kivi import Kivi
from polyad.cache.latents import Basis, Latents
from polyad.cache.metric import Metric
from polyad.cache.observe import observe
from polyad.cache.staircase import staircase

__all__ = [
    "Basis", "Codec", "HeldCache", "Kivi", "Latents", "Metric", "Place", "cache_for", "observe", "remembering",
    "staircase",
]  # fmt: skip
