"""One run of a decoder on a few tokens, with what went into every module and came out of it."""

from __future__ import annotations

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
            if _Handle.__name__ in str(error):
                raise NoLoopError("it reads its cache otherwise than by attending to it") from error
            raise NoLoopError(f"it does not run on a few tokens ({error})") from error
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
