"""The caches of transformers' tests as polyad's exact ones, and its generation with one of polyad's caches."""

from __future__ import annotations

import functools
from typing import Any

from benchmarks.peers_suites.stand_ins import Calls
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationMixin

import polyad
from polyad.cache import cache_for
from polyad.cache.host.held_cache import HeldCache
from polyad.cache.host.layer import HeldLayer
from polyad.models import origin

SUITE = ("tests/utils/test_cache_utils.py",)
CHOSEN = ("-k", "Synthetic and dynamic or CacheIntegration or Cropping")
"""Those of other caches have nothing of polyad's in their place, and those of large models need a connection."""

OTHERWISE: dict[str, str] = {}
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


class ExactLayer(HeldLayer):
    """A layer of polyad's that keeps all tokens as they are, with keys and values to look at as transformers' has."""

    def __init__(self, **_: Any) -> None:
        Calls.count += 1
        super().__init__(None, 0, None)
        self.direct = False

    @property
    def keys(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.read()[0]

    @keys.setter
    def keys(self, _: Any) -> None:
        """Transformers' layer begins without."""

    @property
    def values(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.read()[1]

    @values.setter
    def values(self, _: Any) -> None:
        """As above."""


def exact_cache(*_: Any, **__: Any) -> HeldCache:
    """A cache of two layers."""
    return HeldCache([ExactLayer(), ExactLayer()], None)


@functools.cache
def built_in() -> Any:
    """The built-in model, which is the one of the tests with its numbers rounded to four bits."""
    return polyad.load("smollm2")


class _Model:
    @staticmethod
    def from_pretrained(name: str, **settings: Any) -> Any:
        if name != MODEL:
            return AutoModelForCausalLM.from_pretrained(name, **settings)
        return built_in()


class _Tokenizer:
    @staticmethod
    def from_pretrained(name: str, **settings: Any) -> Any:
        if name != MODEL:
            return AutoTokenizer.from_pretrained(name, **settings)
        tokenizer = origin(built_in()).tokenizer
        tokenizer.padding_side = settings.get("padding_side", "left")
        return tokenizer


def prepare(module: Any) -> None:
    """Give the tests the built-in model, with stand-ins and without."""
    module.AutoModelForCausalLM, module.AutoTokenizer = _Model, _Tokenizer


def start() -> None:
    """Generate with polyad's exact cache, whichever the test asked for."""
    plain = GenerationMixin.generate

    def generate(self: Any, *args: Any, **named: Any) -> Any:
        if named.pop("cache_implementation", None) is not None:
            Calls.count += 1
            named.pop("cache_config", None)
            named["past_key_values"] = cache_for(self)
        return plain(self, *args, **named)

    GenerationMixin.generate = generate  # pyright: ignore[reportAttributeAccessIssue]


TABLE: dict[str, Any] = {
    "DynamicCache": exact_cache, "DynamicLayer": ExactLayer, "ALL_DYNAMIC_LAYERS": [ExactLayer],
}  # fmt: skip
