"""Caches of keys and values that are smaller: one host, and one way of storing a file."""

from polyad.cache.calibration.fisher import fisher
from polyad.cache.calibration.matryoshka_training import matryoshka_bases, matryoshka_ranks
from polyad.cache.calibration.observe import observe
from polyad.cache.codec import Codec, Place
from polyad.cache.codecs.gear import Gear
from polyad.cache.codecs.h2o import H2O
from polyad.cache.codecs.kivi import Kivi
from polyad.cache.codecs.ksort_bfp import KSortBFP
from polyad.cache.codecs.latents import Basis, Latents
from polyad.cache.codecs.matryoshkakv import MatryoshkaKV
from polyad.cache.codecs.metric import Metric
from polyad.cache.codecs.palu import Palu, fisher_ranks
from polyad.cache.codecs.prefixkv import PrefixKV
from polyad.cache.codecs.squat import Squat
from polyad.cache.codecs.staircase import staircase
from polyad.cache.codecs.streaming_llm import StreamingLLM
from polyad.cache.codecs.transform_coding import TransformCoding, water_filling
from polyad.cache.codecs.vidkv import VidKV
from polyad.cache.codecs.xkv import XKV, token_alignment
from polyad.cache.eviction import Eviction
from polyad.cache.host.cache import cache_for, recording_cache
from polyad.cache.host.held_cache import HeldCache, HeldPair

__all__ = [
    "H2O",
    "XKV",
    "Basis",
    "Codec",
    "Eviction",
    "Gear",
    "HeldCache",
    "HeldPair",
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
    "recording_cache",
    "staircase",
    "token_alignment",
    "water_filling",
]
