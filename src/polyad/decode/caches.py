"""Caches by name, for generating."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from polyad.cache.host.held_cache import HeldCache
from polyad.cache.host.model_layers import takes_caches
from polyad.cache.maker import PLAIN, maker
from polyad.data import calibration


def cache_by_name(model: Any, name: str, texts: Callable[[], Any]) -> HeldCache | None:
    """The cache of a codec, ``kivi:bits=4`` or another, calibrated where it needs it on ``texts()``.

    None where a plain one is asked for, and, with a warning, where a codec has nothing to hold.
    """
    if name == PLAIN:
        return None
    if not takes_caches(model):
        line = f"{type(model).__name__} takes no cache but one of its own kind: its cache is the plain one"
        warnings.warn(line, stacklevel=2)
        return None
    cache = maker(model, name, lambda: calibration(model, texts(), count=8).windows)()
    return cache if cache.held else None
