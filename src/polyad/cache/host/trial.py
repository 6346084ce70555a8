"""Trial of a model on a few tokens: who reads what its cache gives, and whether keys have been rotated."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

from polyad.cache.host.calls import cache_of, named_arguments
from polyad.cache.host.model_layers import Use, plain_layers
from polyad.cache.host.rotation import Rotation

TOKENS = 4
TOLERANCE = 0.02
"""The relative error up to which keys rotated here are those that the model rotated; half precision loses 0.004."""


class Trial(Cache):
    """A cache of a few tokens that notes who reads it."""

    def __init__(self, model: Any, numbers: Collection[int], indirect: Collection[int]) -> None:
        layers = plain_layers(model)
        self.tried = {i: _TrialLayer(self, i, i not in indirect) for i in numbers}
        for i, layer in self.tried.items():
            layers[i] = layer
        super().__init__(layers=layers)
        self.latest: int | None = None
        self.calling: nn.Module | None = None
        self.replaying = False
        self.embeddings: dict[int, tuple[Any, Any]] = {}
        self.unrotated: dict[int, Tensor] = {}

    def run(self, model: Any) -> None:
        """A forward pass of the decoder over a few tokens."""
        device, config = model.device, model.config
        ids = torch.ones(1, TOKENS, dtype=torch.int64, device=device)
        more: dict[str, Any] = {"input_ids": ids, "past_key_values": self, "use_cache": True}
        decoder = model.base_model
        if config.is_encoder_decoder:
            decoder = model.get_decoder()
            width = config.get_text_config(decoder=True).hidden_size
            more["encoder_hidden_states"] = torch.zeros(1, 3, width, device=device, dtype=model.dtype)
            more["past_key_values"] = EncoderDecoderCache(self, DynamicCache())
        watched = [module for module in decoder.modules() if isinstance(getattr(module, "layer_idx", None), int)]
        handles = [module.register_forward_pre_hook(self._enter, with_kwargs=True) for module in watched]
        devices = [device] if device.type == "cuda" else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):
                decoder(**more)
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Note the module, and make its keys once more with a rotation by nothing."""
        if self.replaying:
            return
        try:
            named = named_arguments(module, args, kwargs)
        except TypeError:
            return
        caches = [name for name, value in named.items() if cache_of(value) is self]
        if not caches:
            return
        self.calling, pair = module, named.get("position_embeddings")
        still = _identity(pair)
        if still is None:
            return
        catcher, self.replaying = _Catcher(), True
        try:
            module.forward(**named | {"position_embeddings": still} | dict.fromkeys(caches, catcher))
        except _CaughtError:
            self.unrotated[catcher.layer] = catcher.keys
            self.embeddings[catcher.layer] = named.get("position_ids"), pair
        except Exception:  # a module that cannot be run so tells nothing of its rotation, and is then not known
            pass
        finally:
            self.replaying = False

    def uses(self) -> dict[int, Use]:
        """The use that each layer made of its cache."""
        tables: dict[int, int] = {}
        for i in sorted(self.embeddings.keys() & self.tried.keys()):
            same = (j for j in tables if _same(self.embeddings[j][1], self.embeddings[i][1]))
            tables[i] = next(same, i)
        return {
            i: Use(
                layer.module or nn.Identity(),
                layer.keys.shape[1],
                layer.direct,
                self._is_rotated(i, layer.keys),
                tables.get(i, i),
            )
            for i, layer in self.tried.items()
            if isinstance(layer.keys, Tensor)
        }

    def _is_rotated(self, number: int, keys: Tensor) -> bool | None:
        still, module = self.unrotated.get(number), self.tried[number].module
        if module is None:
            return None
        if still is None or still.shape != keys.shape:
            return None if _names_rotation(type(module)) else False
        if torch.equal(keys, still):
            return False
        try:
            rotation = Rotation(module)
            rotation.see(*self.embeddings[number])
            turned = rotation.turn(still, 0)
        except (ValueError, RuntimeError):
            return None
        near = float((turned - keys).float().norm()) <= TOLERANCE * float(keys.float().norm())
        return True if near else None


@cache
def _names_rotation(kind: type[nn.Module]) -> bool:
    """True unless the text of a module's forward pass is read and no word in it is about rotations."""
    try:
        return re.search("rotary|rotat|rope|sin_", inspect.getsource(kind.forward), re.IGNORECASE) is not None
    except (OSError, TypeError):
        return True


def _identity(pair: Any) -> Any:
    """Cosines and sines of a rotation by nothing, in the form of these; None where their form is not known."""
    if isinstance(pair, Tensor):
        return torch.ones_like(pair) if pair.is_complex() else None
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(x, Tensor) for x in pair):
        return torch.ones_like(pair[0]), torch.zeros_like(pair[1])
    return None


def _same(first: Any, second: Any) -> bool:
    """True for two pairs of cosines and sines that are equal."""
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(first, second, strict=True))


class _TrialLayer(DynamicLayer):
    def __init__(self, trial: Trial, number: int, direct: bool) -> None:
        super().__init__()
        self.trial, self.number, self.direct = trial, number, direct
        self.module: nn.Module | None = None
        self.readers: list[Any] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.trial.latest, self.module = self.number, self.trial.calling
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        if not self.direct:
            return keys, values
        handle = _Handle(self.readers, keys, values)
        return handle, handle

    def is_direct(self) -> bool:
        """True where the module that gave keys and values attended to them, once."""
        return self.direct and self.readers == [self.module]


class _Handle:
    """Stands for keys and values until attention asks for them."""

    def __init__(self, readers: list[Any], keys: Tensor, values: Tensor) -> None:
        self._readers, self._keys, self._values = readers, keys, values

    def attend(self, module: nn.Module, query: Tensor, mask: Tensor | None, before: Any, more: Any) -> Tensor:
        self._readers.append(module)
        return before(module, query, self._keys, self._values, mask, **more)[0]


class _CaughtError(BaseException):
    """Ends a call of an attention module when its keys are known."""


class _Catcher:
    """A cache that keeps the keys it is given and ends the call."""

    layer: int
    keys: Tensor

    def get_seq_length(self, *args: Any) -> int:  # noqa: ARG002
        return 0

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        self.layer, self.keys = layer_idx, key_states
        raise _CaughtError
