"""Proof by one forward pass that the inner dimension of a block can be cut as its rule says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from polyad.models.blocks import Block
from polyad.models.proof import LayerTrial
from polyad.models.replacement import Replacement
from polyad.models.twin import Twin

Get = Callable[[str], Tensor]


def cut_refusals(twin: Twin, blocks: Sequence[Block]) -> dict[str, str]:
    """For each block that cannot be cut, by name, what is different once every second unit is left out.

    Leaving a unit out must be the same as setting it to zero: the two are run on the layer itself, of a twin of the
    model.
    """
    refusals: dict[str, str] = {}
    if not blocks:
        return refusals
    halves = [_Half(block, twin.module) for block in blocks]
    trial = LayerTrial(twin, {block.within for block in blocks})
    for block, half in zip(blocks, halves, strict=True):
        home = block.home if block.kind == "mlp" else ""
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
