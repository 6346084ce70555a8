"""Caches by the names that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor

from polyad._arguments import OF_HOSTS, check_arguments, read_method, split_method
from polyad._callback import Callback
from polyad._card import Card
from polyad.cache.calibration.observe import observe
from polyad.cache.codec import arguments
from polyad.cache.eviction import Eviction
from polyad.cache.host.cache import cache_for
from polyad.cache.host.held_cache import HeldCache
from polyad.cache.host.probe import uses_of_cache

PLAIN = "plain"
EXACT = Card(PLAIN, "codec", lambda: None, None, ())
"""The cache without a codec, as far as its arguments go."""
SINKS = 4
"""At two bits and equal bytes, KIVI's increase of perplexity on SmolLM2 is half of that without."""


def check_name(text: str) -> tuple[Card, dict[str, Any]]:
    """The codec that a text names, ``EXACT`` for plain, and its arguments; refuses what is neither."""
    name, values = split_method(text)
    return (EXACT, check_arguments(EXACT, values)) if name == PLAIN else read_method(text, ["codec"])


def maker(
    model: Any, text: str, windows: Callable[[], Iterable[Tensor]], *, callback: Callback | None = None
) -> Callable[[], HeldCache]:
    """The function that makes caches as described: ``plain``, or a codec with arguments, ``metric:rank=64,bits=4``.

    ``window``, ``sinks`` and ``dtype`` of exact tokens may be among the arguments; by default the first four tokens
    stay exact, unless the codec itself chooses which ones stay. ``windows`` gives token ids to
    calibrate on and is called only where the codec needs them. For a model in which a codec can hold nothing, the
    caches are the plain ones.
    """
    chosen, values = check_name(text)
    if chosen is EXACT:
        return partial(cache_for, model, **values)
    options = {option.name: values.pop(option.name) for option in OF_HOSTS["codec"] if option.name in values}
    make = partial(chosen.function, **values)
    if not issubclass(arguments(make), Eviction):  # which chooses itself
        options.setdefault("sinks", SINKS)
    sinks, needed = options.get("sinks", 0), bool(chosen.needs and uses_of_cache(model))
    try:
        observed = observe(model, make, windows(), sinks=sinks, callback=callback) if needed else None
        cache_for(model, make, seen=observed, **options)  # so that what is wrong is said before any work
    except TypeError as error:
        raise ValueError(f"{text!r} does not fit {chosen.name}: {error}") from error
    return partial(cache_for, model, make, seen=observed, **options)
