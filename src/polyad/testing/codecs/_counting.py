"""Checks of bytes: a cache names those that it holds, and they grow in proportion to the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from polyad._card import Card
from polyad.cache import HeldCache, cache_for
from polyad.testing.codecs._subject import (
    TOKENS,
    WINDOW,
    cache_of,
    decoder,
    logits,
    settings,
    statistics,
    tokens,
)

UNEVEN = 0.1
"""The part by which two equal steps in tokens may differ in bytes: shares of tokens are rounded to whole ones."""


def byte_count(card: Card) -> None:
    """``nbytes`` and ``shared_nbytes`` together are all tensors that can be reached from the cache, each once."""
    steps: dict[str, Callable[[Any, HeldCache], Any]] = {
        "a prompt": lambda model, cache: logits(model, tokens(2, WINDOW + TOKENS), cache),
        "more tokens": lambda model, cache: logits(model, tokens(2, 21, seed=7), cache, (17, 1, 1, 1, 1)),
        "reordering": lambda _, cache: cache.reorder_cache(torch.tensor([1, 0])),
        "a cut": lambda _, cache: cache.crop(-2),
    }
    for setting, options in settings(card).items():
        for dtype in (torch.float32, torch.float64):
            cache = cache_of(card, options, dtype=dtype)
            for what, act in steps.items():
                act(decoder(dtype=dtype), cache)
                _assert_counted(card, cache, f"after {what} ({setting}, {dtype})")


def _assert_counted(card: Card, cache: HeldCache, when: str) -> None:
    bases = {t.untyped_storage().data_ptr() for layer in cache.held if layer.codec for t in layer.codec.bases}
    calibration = {t.untyped_storage().data_ptr() for layer in statistics(card) or () for t in layer.values()} - bases
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in reachable_tensors(cache)}
    total = sum(size for place, size in stored.items() if place not in calibration)
    named = cache.nbytes + cache.shared_nbytes
    assert named == total, f"{card.name} {when} names {named} bytes and holds {total}"


def growth(card: Card) -> None:
    """Bytes are a constant and a number for each token, in each row; what is shared does not depend on the sequences;
    the example takes less than exact tokens."""
    for setting, options in settings(card).items():
        sizes = {(rows, steps): _size(card, options, rows, steps) for rows in (1, 2) for steps in (1, 2, 3)}
        shared = {bases for _, bases in sizes.values()}
        assert len(shared) == 1, f"what {card.name} calls shared depends on the sequences: {sorted(shared)} bytes"
        one, two = ([sizes[rows, steps][0] for steps in (1, 2, 3)] for rows in (1, 2))
        assert two == [2 * size for size in one], f"two equal rows take {two} bytes with {card.name}, one row {one}"
        first, second = one[1] - one[0], one[2] - one[1]
        assert first >= 0, f"more tokens take fewer bytes with {card.name}: {one}"
        even = abs(first - second) <= UNEVEN * first
        assert even, f"{TOKENS} tokens more take {first} bytes with {card.name}, and then {second}"
        exact = _exact_size(2) - _exact_size(1)
        fewer = setting == "exact" or first < exact
        assert fewer, f"{card.name} takes {first} bytes for tokens that take {exact} as they are"


def _size(card: Card, options: Mapping[str, Any], rows: int, steps: int) -> tuple[int, int]:
    """Bytes of equal rows of so many times ``TOKENS`` behind the window, and of what they share."""
    cache = cache_of(card, options, dtype=torch.float32)
    ids = tokens(1, WINDOW + 3 * TOKENS)[:, : WINDOW + steps * TOKENS]
    logits(decoder(dtype=torch.float32), ids.repeat(rows, 1), cache)
    return _bytes(cache)


def _bytes(cache: HeldCache) -> tuple[int, int]:
    """Bytes of the sequences and of what they share, without positions and the table of rotations."""
    rotation = cache.rotation
    if rotation is None:
        return cache.nbytes, cache.shared_nbytes
    return cache.nbytes - rotation.nbytes, cache.shared_nbytes - rotation.shared_nbytes


def _exact_size(steps: int) -> int:
    cache = cache_for(decoder(dtype=torch.float32))
    logits(decoder(dtype=torch.float32), tokens(1, steps * TOKENS), cache)
    return cache.nbytes


def reachable_tensors(root: Any) -> Iterator[Tensor]:
    """Every tensor that an object holds, at any depth, but for those of modules."""
    pending, visited = [root], {}
    while pending:
        thing = pending.pop()
        if id(thing) in visited or isinstance(thing, nn.Module | type):
            continue
        visited[id(thing)] = thing
        if isinstance(thing, Tensor):
            yield thing
        else:
            pending += _parts(thing)


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, Mapping):
        return [*thing.keys(), *thing.values()]
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, MethodType):
        return [thing.__self__]
    if isinstance(thing, FunctionType):
        return [cell.cell_contents for cell in thing.__closure__ or ()]
    slots = [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ()) if isinstance(name, str)]
    return [*slots, *getattr(thing, "__dict__", {}).values()]
