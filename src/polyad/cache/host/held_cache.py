"""Caches whose layers are held by codecs, with those of transformers for the others."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from transformers import Cache, EncoderDecoderCache

from polyad.cache.host.layer import HeldLayer
from polyad.cache.host.rotation import Rotation


class HeldCache(Cache):
    """A cache for transformers that counts its bytes: ``nbytes`` of its sequences, ``shared_nbytes`` of the model.

    ``rotations`` are those of keys that are stored without theirs, by the number of the layer that announces the
    positions. Copies and pickles hold all that the sequences need, and nothing of the model.
    """

    def __init__(self, layers: list[Any], rotations: Mapping[int, Rotation] | None) -> None:
        super().__init__(layers=layers)
        self.rotations = dict(rotations or {})

    @property
    def rotation(self) -> Rotation | None:
        """The rotation of the first layer that has one."""
        return next(iter(self.rotations.values()), None)

    @property
    def held(self) -> list[HeldLayer]:
        return [layer for layer in self.layers if isinstance(layer, HeldLayer)]

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales, latents, bases of these sequences, exact tokens, positions, and room for more."""
        stored: dict[int, int] = {}
        for layer in self.held:
            stored |= layer.stored.storages(() if layer.codec is None else layer.codec.bases)
            stored |= {t.data_ptr(): t.nbytes for t in layer.state}
        exact = sum(part.nbytes for layer in self.held for part in (layer.first, layer.recent))
        plain = sum(t.nbytes for layer in self.layers if not isinstance(layer, HeldLayer) for t in state_of(layer))
        return sum(stored.values()) + exact + plain + sum(rotation.nbytes for rotation in self.rotations.values())

    @property
    def numbers(self) -> int:
        """The count of numbers in exact tokens and in layers that transformers holds, without spare room."""
        parts = [part for layer in self.held for part in (layer.first, layer.recent) if part.length]
        others = [t for layer in self.layers if not isinstance(layer, HeldLayer) for t in state_of(layer)]
        return sum(t.numel() for t in (*others, *(t for part in parts for t in part.read())))

    @property
    def shared_nbytes(self) -> int:
        """Bytes of calibrated bases and tables of rotations, held once for a model."""
        codecs = [layer.codec for layer in self.held if layer.codec is not None]
        bases = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for c in codecs for t in c.bases}
        return sum(bases.values()) + sum(rotation.shared_nbytes for rotation in self.rotations.values())

    def adopt(self, other: HeldCache) -> HeldCache:
        """Encode the tokens of an exact cache of ``recording_cache``, as if the model had run on them; self."""
        for number, rotation in self.rotations.items():
            if number not in other.rotations:
                raise ValueError("the exact cache knows no positions; make it with recording_cache(model)")
            rotation.adopt(other.rotations[number])
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            if isinstance(mine, HeldLayer) and isinstance(theirs, HeldLayer):
                mine.adopt(theirs)
            elif type(mine) is type(theirs) and not isinstance(mine, HeldLayer):
                vars(mine).update(copy.deepcopy(vars(theirs)))  # as it stands: a window that slides knows its length
            else:
                raise ValueError(f"a {type(theirs).__name__} cannot be adopted; run the model on the prompt instead")
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> Self:
        """A copy of the sequences, which shares what codecs hold for the model."""
        storages = memo.setdefault("torch", {})  # where torch looks for what is copied already
        for layer in self.held:
            for base in () if layer.codec is None else layer.codec.bases:
                storages[base.untyped_storage()._cdata] = base.untyped_storage()
        duplicate = memo[id(self)] = type(self).__new__(type(self))
        vars(duplicate).update(copy.deepcopy(vars(self), memo))
        return duplicate

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        for rotation in self.rotations.values():
            rotation.crop(self.get_seq_length())

    def batch_select_indices(self, indices: Tensor) -> None:
        rows = torch.as_tensor(indices)  # transformers takes a tuple too
        super().batch_select_indices(rows)
        for rotation in self.rotations.values():
            rotation.select(rows)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        for rotation in self.rotations.values():
            rotation.repeat(repeats)

    def reorder_cache(self, beam_idx: Any) -> None:
        super().reorder_cache(beam_idx)
        for rotation in self.rotations.values():
            rotation.select(beam_idx)

    def reset(self) -> None:
        raise ValueError("a cache of codecs cannot be reset, since they remember the sequence; make a new one")


class HeldPair(EncoderDecoderCache, HeldCache):
    """A cache of a decoder's own tokens, and transformers' for what it reads of the encoder's, which never grows."""

    def __init__(self, own: HeldCache, cross: Cache) -> None:
        EncoderDecoderCache.__init__(self, own, cross)

    @property
    def layers(self) -> list[Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.self_attention_cache.layers

    @property
    def rotations(self) -> dict[int, Rotation]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.self_attention_cache.rotations  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def nbytes(self) -> int:
        """Bytes of both caches."""
        return super().nbytes + sum(t.nbytes for layer in self.cross_attention_cache.layers for t in state_of(layer))

    def adopt(self, other: HeldCache) -> HeldCache:
        """Encode the tokens of an exact pair of ``recording_cache``; self."""
        if not isinstance(other, HeldPair):
            raise ValueError(f"a {type(other).__name__} knows nothing of the encoder; make it with recording_cache")
        self.cross_attention_cache = copy.deepcopy(other.cross_attention_cache)
        self.is_updated = dict(other.is_updated)
        HeldCache.adopt(self, other)
        return self

    def check_dynamic_cache(self, method: str) -> None:
        """Allow all that transformers allows for caches that grow."""

    def reset(self) -> None:
        HeldCache.reset(self)


def state_of(layer: Any) -> list[Tensor]:
    """The tensors that a layer of transformers' own holds."""
    values = [x for value in vars(layer).values() for x in (value.values() if isinstance(value, dict) else [value])]
    return [value for value in values if isinstance(value, Tensor)]
