"""One run of a decoder on a few tokens, with what went into every module and came out of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from polyad.cache.host.attention import install
from polyad.cache.host.model_layers import plain_layers, takes_caches
from polyad.decode.outline import NoLoopError

TOKENS = 12


@dataclass(frozen=True)
class Call:
    """One call of a module."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def input(self) -> Tensor:
        """The first tensor that went in."""
        values = (*self.args, *self.kwargs.values())
        return next(value for value in values if isinstance(value, Tensor))

    @property
    def result(self) -> Tensor:
        """The first tensor that came out."""
        return self.output if isinstance(self.output, Tensor) else self.output[0]


@dataclass(frozen=True)
class Attended:
    """One call of the attention function: queries, keys and values (1, heads, tokens, channels), and its result
    (1, tokens, heads, channels)."""

    module: nn.Module
    query: Tensor
    keys: Tensor
    values: Tensor
    options: dict[str, Any]
    result: Tensor


class Trace:
    """The calls of a forward pass over ``TOKENS`` random tokens of one sequence."""

    def __init__(self, model: Any) -> None:
        config: Any = model.config.get_text_config(decoder=True)
        if model.config.is_encoder_decoder:
            raise NoLoopError(f"{type(model).__name__} reads through an encoder")
        if not takes_caches(model):
            raise NoLoopError(f"{type(model).__name__} takes no cache but one of its own kind")
        self.config = config
        self.stated = _stated_numbers(config)
        self.ids = random_ids(1, TOKENS, config.vocab_size).to(model.device)
        self.calls: dict[nn.Module, list[Call]] = {}
        self.attended: dict[int, Attended] = {}
        self.windows = [_window(layer) for layer in plain_layers(model)]
        self.logits = self._run(model)

    def _run(self, model: Any) -> Tensor:
        try:
            if not install(model):
                raise NoLoopError(f"the attention of {type(model).__name__} cannot be chosen")
        except ValueError as error:
            raise NoLoopError(str(error)) from error
        layers: list[Any] = [_NotingLayer(self, number) for number in range(len(self.windows))]
        handles = [m.register_forward_hook(self._note, with_kwargs=True) for m in model.modules()]
        devices = [model.device] if model.device.type == "cuda" else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):
                return model(input_ids=self.ids, past_key_values=Cache(layers=layers), use_cache=True).logits
        except Exception as error:  # whatever a model raises that is used otherwise than it expects
            raise NoLoopError(f"{type(model).__name__} does not run with a cache of ours ({error})") from error
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.calls.setdefault(module, []).append(Call(args, kwargs, output))

    def call(self, module: nn.Module, what: str) -> Call:
        """The only call of a module."""
        calls = self.calls.get(module, [])
        if len(calls) != 1:
            raise NoLoopError(f"{what} is called {len(calls)} times for a token")
        return calls[0]

    def tensor_calls(self, module: nn.Module) -> list[tuple[nn.Module, Tensor, Tensor]]:
        """The modules inside of one that turned a tensor into a tensor, once, with both, in order of the calls."""
        inside = set(module.modules()) - {module}
        listed = []
        for other, calls in self.calls.items():
            if other not in inside or len(calls) != 1 or not isinstance(calls[0].output, Tensor):
                continue
            tensors = [v for v in (*calls[0].args, *calls[0].kwargs.values()) if isinstance(v, Tensor)]
            if len(tensors) == 1 and tensors[0].is_floating_point():
                listed.append((other, _batched(tensors[0]), _batched(calls[0].output)))
        return listed


def _batched(x: Tensor) -> Tensor:
    """(1, tokens, width), where a model puts all tokens of a batch side by side too."""
    return x[None] if x.ndim == 2 and x.shape[0] == TOKENS else x


def random_ids(batch: int, count: int, vocabulary: int) -> Tensor:
    """Token ids (batch, count) that are the same every time."""
    return torch.randint(
        min(3, vocabulary - 1), vocabulary, (batch, count), generator=torch.Generator().manual_seed(0)
    )


def same(value: Tensor, other: Tensor) -> bool:
    """True for tensors of one shape and of the same numbers up to the rounding of their dtypes."""
    if value is other:
        return True
    return value.shape == other.shape and distance(value, other) <= _rounding(value, other)


def distance(value: Tensor, other: Tensor) -> float:
    """The relative distance in the Frobenius norm."""
    value, other = value.detach().double(), other.detach().double()
    return float((value - other).norm() / other.norm().clamp_min(1e-30))


def equal(value: Tensor, other: Tensor) -> bool:
    """True for what is the same tensor, or a copy of it. Where nothing is computed again, near is not enough: some
    models hold numbers so large that a whole attention beside them is a rounding."""
    return value is other or (value.shape == other.shape and torch.equal(value, other))


def multiple(value: Tensor, part: Tensor, stated: Collection[float] = (), base: Tensor | float = 0.0) -> float:
    """The number by which a part is multiplied so that, with ``base``, it makes the value: one or a ``stated`` number
    where that comes nearest."""
    rest, wide = (value - base).detach().double(), part.detach().double()
    estimate = float((rest * wide).sum() / wide.square().sum().clamp_min(1e-300))
    candidates = [1.0, *(n for n in stated if abs(n - estimate) < 0.1 * abs(estimate)), estimate]
    return min(candidates, key=lambda n: distance(base + n * part, value))


def _rounding(*tensors: Tensor) -> float:
    """Models compute norms and rotations in float32, whatever they hold."""
    half = any(t.dtype.itemsize < 4 for t in tensors)
    return 0.01 if half else 100 * torch.finfo(torch.float32).eps


def _stated_numbers(config: Any) -> tuple[float, ...]:
    """The numbers of a configuration by which something may be multiplied, and what is usually made of them."""
    numbers = {v for v in vars(config).values() if isinstance(v, float) and v not in (0.0, 1.0)}
    numbers |= {config.hidden_size**0.5, *(n / config.num_hidden_layers**0.5 for n in numbers)}
    return tuple(sorted(numbers | {1 / n for n in numbers}))


def _window(layer: Any) -> int | None:
    kind = type(layer).__name__
    if kind == "DynamicLayer":
        return None
    window = getattr(layer, "sliding_window", None)
    if kind != "DynamicSlidingWindowLayer" or not isinstance(window, int):
        raise NoLoopError(f"a layer of the cache is a {kind}")
    return window


class _NotingLayer(DynamicLayer):
    """A layer of a cache that notes the attention to what it holds."""

    def __init__(self, trace: Trace, number: int) -> None:
        super().__init__()
        self.trace, self.number = trace, number

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        handle = _Handle(self, keys, values)
        return handle, handle


class _Handle:
    """Stands for keys and values until attention asks for them."""

    def __init__(self, layer: _NotingLayer, keys: Tensor, values: Tensor) -> None:
        self._layer, self._keys, self._values = layer, keys, values

    def attend(self, module: nn.Module, query: Tensor, mask: Tensor | None, before: Any, more: Any) -> Tensor:
        result = before(module, query, self._keys, self._values, mask, **more)[0]
        trace, number = self._layer.trace, self._layer.number
        if number in trace.attended:
            raise NoLoopError(f"layer {number} attends to its keys more than once")
        trace.attended[number] = Attended(module, query, self._keys, self._values, dict(more), result)
        return result
