"""Caches of keys and values that are smaller: one host, and one way of storing a file."""

from polyad.cache.codec import Codec, Place
from polyad.cache.eviction import Eviction
from polyad.cache.gear import Gear
from polyad.cache.h2o import H2O
from polyad.cache.host import HeldCache, cache_for, remembering
from polyad.cache.kivi import Kivi
from polyad.cache.latents import Basis, Latents
from polyad.cache.metric import Metric
from polyad.cache.observe import observe
from polyad.cache.prefixkv import PrefixKV
from polyad.cache.squat import Squat
from polyad.cache.streaming_llm import StreamingLLM
from polyad.cache.vidkv import VidKV

__all__ = [
    "H2O", "Basis", "Codec", "Eviction", "Gear", "HeldCache", "Kivi", "Latents", "Metric", "Place", "PrefixKV",
    "Squat", "StreamingLLM", "VidKV", "cache_for", "observe", "remembering",
]  # fmt: skip
