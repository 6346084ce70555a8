"""Small decoders, calibrations of them, and their keys and values, on which codecs are tried."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.cache import Codec, Eviction, HeldCache, cache_for, observe
from polyad.cache.host.model_layers import attentions, place
from polyad.cache.host.rotation import Rotation
from polyad.formats import Dense, Format
from polyad.testing.decoders import random_decoder, random_tokens

LAYERS, HEADS, KEY_HEADS, WIDTH, VOCABULARY = 2, 4, 2, 8, 97
TOKENS = 48
"""Tokens that leave the window together in most checks: blocks of up to 16 fit, and half of it is full rank."""
WINDOW, PADDING = 4, 7
PROMPT = TOKENS + WINDOW
"""Tokens of a prompt of which ``TOKENS`` leave the window."""

DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "grouped": ("Llama", {}),
    "partial": ("Glm", {"partial_rotary_factor": 0.5}),  # of neighbouring channels
    "normed": ("Qwen3", {}),  # norms of queries and keys
}
"""Families of transformers with two query heads for each key head: plain, with half of the channels rotated, and with
norms of queries and keys."""

NEAR = 0.02
"""The relative error up to which what ``exact`` makes counts as what was given: eight bits lose about 0.005."""
ROUNDED = 1e-7
"""The relative error of what differs by roundings alone, in float64 with a softmax between."""


def decoder(kind: str = "grouped", dtype: torch.dtype = torch.float64) -> Any:
    """A decoder in which heads of keys and of values differ in size, so that they cannot be taken for each other."""
    return _decoder(kind, dtype)


@functools.cache
def _decoder(kind: str, dtype: torch.dtype) -> Any:
    family, changed = DECODERS[kind]
    model = random_decoder(
        family, hidden_size=HEADS * WIDTH, intermediate_size=48, num_hidden_layers=LAYERS, head_dim=WIDTH,
        num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS, vocab_size=VOCABULARY, max_position_embeddings=256,
        bos_token_id=None, eos_token_id=None, pad_token_id=0, **changed,
    )  # fmt: skip
    with torch.no_grad():
        for module in attentions(model).values():
            module.get_parameter("k_proj.weight")[:WIDTH] *= 0.5
            module.get_parameter("v_proj.weight")[:WIDTH] *= 3
    return model.to(dtype)


def tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    """Token ids (batch, length)."""
    return random_tokens(batch, length, VOCABULARY, seed)


def logits(
    model: Any,
    ids: Tensor,
    cache: Any = None,
    steps: Sequence[int] = (),
    *,
    positions: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The logits of a model for ids (batch, tokens), fed in pieces of these lengths, or at once.

    ``positions`` (batch, tokens) are theirs, and ``mask`` (batch, all tokens) says which ones, of those in the cache
    too, are no padding.
    """
    sizes = list(steps) or [ids.shape[1]]
    places = [None] * len(sizes) if positions is None else positions.split(sizes, 1)
    with torch.no_grad():
        pieces = [
            model(piece, position_ids=place, attention_mask=mask, past_key_values=cache).logits
            for piece, place in zip(ids.split(sizes, 1), places, strict=True)
        ]
    return torch.cat(pieces, 1)


def settings(card: Card) -> dict[str, dict[str, Any]]:
    """The arguments of the card's example, and of its nearly exact setting where it states one."""
    example = dict(card.example)
    return {"example": example} | ({} if card.exact is None else {"exact": example | dict(card.exact)})


def is_eviction(card: Card) -> bool:
    """True for a method that keeps some tokens as they are and drops others."""
    return isinstance(card.function, type) and issubclass(card.function, Eviction)


def statistics(card: Card, kind: str = "grouped") -> list[dict[str, Tensor]] | None:
    """Calibration for a codec that needs it."""
    return _observe(card.function, kind) if card.needs else None


@functools.lru_cache(maxsize=64)
def _observe(make: Callable[..., Codec], kind: str) -> list[dict[str, Tensor]]:
    return observe(decoder(kind), make, [tokens(1, 96, seed) for seed in (5, 6)])


def cache_of(
    card: Card,
    options: Mapping[str, Any],
    *,
    kind: str = "grouped",
    dtype: torch.dtype = torch.float64,
    sinks: int = 0,
) -> HeldCache:
    """A new cache of the codec with these arguments, for ``decoder(kind, dtype)``."""
    make = partial(card.function, **options)
    return cache_for(decoder(kind, dtype), make, window=WINDOW, sinks=sinks, seen=statistics(card, kind))


@dataclass(frozen=True)
class Entries:
    """Keys, values and queries (batch, heads, tokens, channels) of each layer as a host hands them over, and the
    rotation of the keys where they come without it."""

    layers: tuple[tuple[Tensor, Tensor, Tensor], ...]
    rotation: Rotation | None

    def map(self, change: Callable[[Tensor], Tensor]) -> Entries:
        """The same with every tensor changed."""
        return Entries(tuple((change(k), change(v), change(q)) for k, v, q in self.layers), self.rotation)

    def turn(self, keys: Tensor, at: int = 0) -> Tensor:
        assert self.rotation is not None
        return self.rotation.turn(keys, at)


def entries(card: Card, batch: int = 3) -> Entries:
    """The keys, values and queries of ``TOKENS`` tokens in ``decoder()``, as a host would hand them to this codec."""
    return _record_entries(bool(getattr(card.function, "before_rotation", False)), batch)


@functools.cache
def _record_entries(before: bool, batch: int) -> Entries:
    layers: list[tuple[Tensor, Tensor, Tensor]] = []

    class Recorder(Codec):
        before_rotation = before

        def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Format, Format]:
            layers.append((keys.clone(), values.clone(), queries.clone()))
            return Dense(keys), Dense(values)

    def make(_place: Any) -> Codec:
        return Recorder()

    make.before_rotation = before  # pyright: ignore[reportFunctionMemberAccess] - as a codec's class
    model = decoder()
    cache = cache_for(model, make, window=0)
    logits(model, tokens(batch, TOKENS), cache)
    return Entries(tuple(layers), cache.rotation)


def codec_of(card: Card, options: Mapping[str, Any], calibration: Sequence[dict[str, Tensor]] | None = None) -> Codec:
    """The codec of the first layer with these arguments."""
    layers = statistics(card) if calibration is None else calibration
    model = decoder()
    first = place(model.config, 0, attentions(model)[0], None if layers is None else layers[0])
    return card.function(first, **options)


def encode_entries(codec: Codec, given: Entries) -> list[tuple[Format, Format]]:
    """The formats that the codec makes of the layers that it owns, or of the first one."""
    layers = given.layers[: codec.layers]
    return codec.encode_layers([(k, v) for k, v, _ in layers], [q for _, _, q in layers])


def restore_entries(codec: Codec, given: Entries) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer after the codec."""
    return [(codec.keys(keys), codec.values(values)) for keys, values in encode_entries(codec, given)]


def round_trips(codec: Codec, given: Entries) -> list[tuple[str, Tensor, Tensor]]:
    """Name, what came back and what was given, for keys and values of each layer that the codec owns."""
    sides = []
    for number, (back, layer) in enumerate(zip(restore_entries(codec, given), given.layers, strict=False)):
        both = zip(("keys", "values"), back, layer, strict=False)
        sides += [(f"{side} of layer {number}", mine, right) for side, mine, right in both]
    return sides
