"""Blocks whose units stand in another order, and blocks of which half the units are dead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from polyad.statistics import Moments
from polyad.testing._contract import seeded
from polyad.testing._moments import permute_inputs
from polyad.testing.groups._subject import Site


def permute_units(here: Site) -> tuple[Site, Tensor]:
    """The block with its units in another order, key heads included; and that order, for its ``products``."""
    generator, block, rows = seeded(3), here.block, here.weights
    if block.kind == "mlp":
        order = torch.randperm(rows[block.roles["down"] + ".weight"].shape[1], generator=generator)
        moves = {"gate": (order, None), "up": (order, None), "down": (None, order)}
        return _permute(here, moves), torch.arange(rows[block.roles["down"] + ".weight"].shape[0])
    share, heads = block.heads // block.key_heads, torch.randperm(block.key_heads, generator=generator)
    if block.kind == "qk":  # both members of a pair
        inner = torch.stack([torch.randperm(block.width // 2, generator=generator) for _ in heads])
        inner = torch.cat((inner, inner + block.width // 2), 1)
    else:
        inner = torch.stack([torch.randperm(block.width, generator=generator) for _ in heads])
    shared = (heads[:, None] * block.width + inner).flatten()
    queries = (heads[:, None] * share + torch.arange(share)).flatten()
    wide = (queries[:, None] * block.width + inner.repeat_interleave(share, 0)).flatten()
    moves = {"q": (wide, None), "k": (shared, None), "v": (shared, None), "o": (None, wide)}
    constants = torch.arange(block.heads, block.heads + (block.kind == "vo"))
    return _permute(here, {r: moves[r] for r in block.roles}), torch.cat((queries, constants))


def _permute(here: Site, moves: Mapping[str, tuple[Tensor | None, Tensor | None]]) -> Site:
    """The block with rows and columns of its matrices, and their statistics, in another order."""
    weights, stats = dict(here.weights), dict(here.stats)
    for role, (rows, columns) in moves.items():
        path = here.block.roles[role]
        for name in (path + ".weight", path + ".bias"):
            if rows is not None and name in weights:
                weights[name] = weights[name][rows]
        values = here.stats[path].values
        if rows is not None and "output_square" in values:
            values = {**values, "output_square": values["output_square"][rows]}
        stats[path] = Moments(here.stats[path].count, **values)
        if columns is not None:
            weights[path + ".weight"] = weights[path + ".weight"][:, columns]
            stats[path] = permute_inputs(stats[path], columns)
    return replace(here, weights=weights, stats=stats)


def kill_units(here: Site) -> nn.Module:
    """The model with every second unit of the block dead: rows of up, of queries and of values that are zero."""
    block = here.block
    role, heads = {"mlp": ("up", 1), "qk": ("q", block.heads), "vo": ("v", block.key_heads)}[block.kind]
    module: Any = here.model.get_submodule(block.roles[role])
    for tensor in (module.weight, module.bias):
        if tensor is not None:
            tensor.data.unflatten(0, (heads, -1))[:, ::2] = 0
    return here.model
