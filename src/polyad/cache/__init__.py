"""Caches of keys and values that are smaller: one host, and one way of storing a file."""

from polyad.cache.codec import Codec, Place
from polyad.cache.eviction import Eviction
from polyad.cache.fisher import fisher
from polyad.cache.gear import Gear
from polyad.cache.h2o import H2O
from polyad.cache.host import HeldCache, cache_for, remembering
from polyad.cache.kivi import Kivi
from polyad.cache.ksort_bfp import KSortBFP
from polyad.cache.latents import Basis, Latents
from polyad.cache.matryoshka_training import matryoshka_bases, matryoshka_ranks
from polyad.cache.matryoshkakv import MatryoshkaKV
from polyad.cache.metric import Metric
from polyad.cache.observe import observe
from polyad.cache.palu import Palu, fisher_ranks
from polyad.cache.prefixkv import PrefixKV
from polyad.cache.squat import Squat
from polyad.cache.staircase import staircase
from polyad.cache.streaming_llm import StreamingLLM
from polyad.cache.transform_coding import TransformCoding, water_filling
from polyad.cache.vidkv import VidKV
from polyad.cache.xkv import XKV, token_alignment

__all__ = [
    "H2O",
    "XKV",
    "Basis",
    "Codec",
    "Eviction",
    "Gear",
    "HeldCache",
    "KSortBFP",
    "Kivi",
    "Latents",
    "MatryoshkaKV",
    "Metric",
    "Palu",
    "Place",
    "PrefixKV",
    "Squat",
    "StreamingLLM",
    "TransformCoding",
    "VidKV",
    "cache_for",
    "fisher",
    "fisher_ranks",
    "matryoshka_bases",
    "matryoshka_ranks",
    "observe",
    "remembering",
    "staircase",
    "token_alignment",
    "water_filling",
]
