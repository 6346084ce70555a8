"""Proof by one forward pass that two ways to write a part of a decoder's layer are one function."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyad.models.blocks import Block, decoder_layers
from polyad.models.quiet import quiet
from polyad.models.replacement import Replacement, modules
from polyad.models.small_inputs import small_inputs
from polyad.models.surgery import replace
from polyad.models.twin import PrivateWrites, shared_twin

CLOSE = 1e-4
"""The share of what a layer adds to its input by which two results may differ: some compute in float32 within."""


@dataclass(frozen=True)
class Call:
    """The arguments with which a model called one of its layers."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def to(self, dtype: torch.dtype) -> Call:
        """The same with every floating-point tensor in this dtype."""
        return Call(_cast(self.args, dtype), _cast(dict(self.kwargs), dtype))


class Trial:
    """A copy of a model with what each layer of its decoder is called with, on which rewritten layers are tried.

    The model runs once, on small inputs, and is not touched. A layer is tried in float32, and where the results
    differ in float64 too, since a large input hides what the layer adds to it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.twin = shared_twin(model).eval()
        self.calls = _layer_calls(self.twin, list(decoder_layers(model)))

    def difference(
        self, layer: str, home: str, one: Any, other: Any, blocks: Iterable[Block] = ()
    ) -> str | None:  # fmt: skip
        """Say what is different between two rewritings of a layer; None where both are one function.

        ``one`` and ``other`` give a Replacement from a function that reads a parameter by its path. A module at
        ``home`` that takes a tensor alone is tried on random numbers, since a layer may not call it every time.
        """
        said = ""
        for dtype in (torch.float32, torch.float64):
            with self._wide_layer(layer, dtype):
                try:
                    pair = [self._output(layer, home, make(self._get), blocks, dtype) for make in (one, other)]
                except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
                    said = said or (str(error).strip().splitlines() or [type(error).__name__])[0]
                    continue
            (y, x), (z, _) = pair
            moved, scale = float((y - z).norm()), float((y - x).norm())
            if moved <= CLOSE * scale:
                return None
            said = f"its output would change by {moved / max(scale, 1e-300):.2g} of what it adds"
        return said

    @contextmanager
    def _wide_layer(self, path: str, dtype: torch.dtype) -> Iterator[None]:
        layer = self.twin.get_submodule(path)
        if all(p.dtype == dtype for p in layer.parameters()):
            yield
            return
        self.twin.set_submodule(path, copy.deepcopy(layer).to(dtype))
        try:
            yield
        finally:
            self.twin.set_submodule(path, layer)

    def _get(self, name: str) -> Tensor:
        return self.twin.get_parameter(name).detach().clone()

    @torch.no_grad()
    def _output(
        self, layer: str, home: str, replacement: Replacement, blocks: Iterable[Block], dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        undo = replace(self.twin, modules(self.twin, replacement, blocks))
        try:
            alone = home and self._alone(home, dtype)
            if alone:
                return alone
            if layer not in self.calls:
                raise ValueError("the model could not be run on small inputs, or does not call it")
            call = self.calls[layer].to(dtype)
            y: Any = self.twin.get_submodule(layer)(*call.args, **call.kwargs)
            while not isinstance(y, Tensor):
                y = y[0]
            x = call.args[0] if call.args else call.kwargs["hidden_states"]
            return y, x if x.shape == y.shape else torch.zeros_like(y)
        finally:
            undo()

    def _alone(self, home: str, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """The output of a module on random rows and what it is measured from; None where it needs more arguments."""
        module: Any = self.twin.get_submodule(home)
        first = next(p for p in module.parameters() if p.ndim == 2)
        x = torch.randn(4, first.shape[1], generator=torch.Generator().manual_seed(0)).to(first.device, dtype)
        try:
            y = module(x)
        except (TypeError, ValueError):
            return None
        return (y, torch.zeros_like(y)) if isinstance(y, Tensor) else None


def _layer_calls(twin: nn.Module, paths: list[str]) -> dict[str, Call]:
    """Run a model on the first of its small inputs that fits and note what its layers get."""
    calls: dict[str, Call] = {}

    def note(path: str) -> Any:
        return lambda _m, args, kwargs: calls.setdefault(path, Call(args, kwargs)) and None

    hooks = [twin.get_submodule(path).register_forward_pre_hook(note(path), with_kwargs=True) for path in paths]
    devices = sorted({p.device.index or 0 for p in twin.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), quiet(), PrivateWrites(twin):
            for inputs in reversed(small_inputs(twin)):  # the last of them asks for no cache
                calls.clear()
                try:
                    twin(**inputs)
                    break
                except Exception:  # the model takes other inputs: the next are tried, and none proves nothing
                    continue
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return type(value)(_cast(part, dtype) for part in value)
    return {key: _cast(part, dtype) for key, part in value.items()} if type(value) is dict else value
