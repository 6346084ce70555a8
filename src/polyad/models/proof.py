"""Proof by one forward pass that two ways to write a part of a decoder's layer are one function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from polyad.models.blocks import Block
from polyad.models.replacement import Replacement, put_in_place
from polyad.models.twin import LayerCall

Get = Callable[[str], Tensor]

CLOSE = 1e-4
"""The share of what a layer adds to its input by which two results may differ: some compute in float32 within."""


class LayerTrial:
    """A copy of a model with what some of its layers are called with, on which rewritten layers are tried.

    ``twin`` and ``calls`` are those of a ``Twin``, which ran once, on small inputs. A layer is tried in float32, and
    where the results differ in float64 too, since a large input hides what the layer adds to it.
    """

    def __init__(self, twin: nn.Module | None, calls: Mapping[str, LayerCall]) -> None:
        self.twin: Any = twin
        self.calls = calls

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


def cut_refusals(trial: LayerTrial, blocks: Sequence[Block]) -> dict[str, str]:
    """For each block that cannot be cut, by name, what is different once every second unit is left out.

    Leaving a unit out must be the same as setting it to zero: the two are run on the layer itself, of a copy of the
    model.
    """
    refusals: dict[str, str] = {}
    for block in blocks:
        half, home = _Half(block, trial.twin), block.home if block.kind == "mlp" else ""
        said = trial.difference(block.within, home, half.with_zeros, half.cut, [block])
        if said is not None:
            refusals[block.name] = said
    return refusals


class _Half:
    """A block with every second unit set to zero, and the same with these units left out."""

    def __init__(self, block: Block, model: Any) -> None:
        self.block, self.model = block, model

    def with_zeros(self, get: Get) -> Replacement:
        new: dict[str, Any] = {}
        for name, dimension, index in self._parts(get):
            value = get(name)
            keep = torch.zeros(value.shape[dimension], dtype=torch.bool, device=value.device)
            keep[index] = True
            shape = [-1 if d == dimension else 1 for d in range(value.ndim)]
            new[name] = value * keep.reshape(shape)
        return Replacement(new)

    def cut(self, get: Get) -> Replacement:
        new: dict[str, Any] = {
            name: get(name).index_select(dimension, index).contiguous() for name, dimension, index in self._parts(get)
        }
        block = self.block
        if block.kind == "qk":
            pairs = torch.arange(0, block.width // 2, 2).expand(block.key_heads, -1).contiguous()
            return Replacement(new, {block.home: {"pairs": pairs}})
        return Replacement(new, {block.home: {"value_width": len(range(0, block.width, 2))}} if block.width else {})

    def _parts(self, get: Get) -> Iterable[tuple[str, int, Tensor]]:
        """Each parameter that is cut, the dimension of it, and the indices that stay."""
        block = self.block
        if block.kind == "mlp":
            index = {role: torch.arange(0, get(f"{block.roles['down']}.weight").shape[1], 2) for role in block.roles}
        else:
            first = torch.arange(0, block.width // 2 if block.kind == "qk" else block.width, 2)
            columns = torch.cat((first, first + block.width // 2)) if block.kind == "qk" else first
            index = {
                role: (torch.arange(heads)[:, None] * block.width + columns).reshape(-1)
                for role, heads in zip(block.roles, self._heads(), strict=True)
            }
        for role, path in block.roles.items():
            inner = role in ("down", "o")
            yield f"{path}.weight", int(inner), index[role]
            if not inner and getattr(self.model.get_submodule(path), "bias", None) is not None:
                yield f"{path}.bias", 0, index[role]

    def _heads(self) -> tuple[int, int]:
        """Heads of the two matrices of an attention block in the order of their roles."""
        block = self.block
        return (block.heads, block.key_heads) if block.kind == "qk" else (block.key_heads, block.heads)
