"""Proof by one forward pass that two ways to write a part of a decoder's layer are one function."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from polyad.models.blocks import Block
from polyad.models.replacement import Replacement, put_in_place
from polyad.models.twin import Twin

CLOSE = 1e-4
"""The share of what a layer adds to its input by which two results may differ: some compute in float32 within."""


class LayerTrial:
    """A copy of a model with what some of its layers are called with, on which rewritten layers are tried.

    The copy runs once, on small inputs. A layer is tried in float32, and where the results differ in float64 too,
    since a large input hides what the layer adds to it.
    """

    def __init__(self, twin: Twin, layers: Iterable[str]) -> None:
        self.twin: Any = twin.module
        self.calls = twin.layer_calls(layers)

    def difference(
        self, layer: str, home: str, one: Any, other: Any, blocks: Iterable[Block] = ()
    ) -> str | None:  # fmt: skip
        """Say what is different between two rewritings of a layer; None where both are one function.

        ``one`` and ``other`` give a Replacement from a function that reads a parameter by its path. A module at
        ``home`` that takes a tensor alone is tried on random numbers, since a layer may not call it every time.
        """
        if self.twin is None:
            return "the model cannot be copied"
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
        undo = put_in_place(self.twin, replacement, blocks)
        try:
            if home:
                module = self.twin.get_submodule(home)
                first = next(p for p in module.parameters() if p.ndim == 2)
                x = torch.randn(4, first.shape[1], generator=torch.Generator().manual_seed(0)).to(first.device, dtype)
                with suppress(TypeError, ValueError):  # it needs more arguments
                    rows = module(x)
                    if isinstance(rows, Tensor):
                        return rows, torch.zeros_like(rows)
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
