"""Parts of the contract of group methods: a block of a real decoder, what a cut leaves of it, its error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from polyad._card import Card
from polyad.models.blocks import Block, blocks
from polyad.models.calibration import collect
from polyad.models.replacement import Replacement
from polyad.statistics import Moments
from polyad.testing._trial_models import decoder, in_effect, logits, tokens

Weights = Mapping[str, Tensor]
OWN = ("of", "exact", "units")
"""Entries of an example that are for the contract and not for the method."""
FAMILIES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("Llama", {}), ("Llama", {"attention_bias": True, "mlp_bias": True}), ("Qwen2", {}),
)  # fmt: skip
"""Decoders in which two query heads share a key head: without biases, with all, and with all but the outputs'."""
OUTER = {"down": 1, "o": 1}
"""The axis of a role's weight that a cut makes shorter; 0 for all others."""


@dataclass(frozen=True, eq=False)
class Site:
    """A block of a decoder, its parameters and the statistics that a method needs of it."""

    model: nn.Module
    block: Block
    weights: Weights
    stats: Mapping[str, Moments]
    inputs: Tensor

    @property
    def second(self) -> Tensor:
        """E[x xᵀ] of the block's inputs, with a one behind every x; (in + 1, in + 1)."""
        rows = torch.cat((self.inputs, self.inputs.new_ones(len(self.inputs), 1)), 1)
        return rows.mT @ rows / len(rows)


def sites(card: Card, dtype: torch.dtype = torch.float64) -> Iterator[Site]:
    """Every kind of block that a method is for, in the second layer of every family."""
    for family, changed in FAMILIES:
        for kind in card.example.get("of", ("mlp", "qk", "vo")):
            model = decoder(family, **changed).to(dtype)
            yield site(card, model, next(block for block in blocks(model, (kind,)) if block.layer == 1))


def site(card: Card, model: nn.Module, block: Block) -> Site:
    """A block as it stands, with statistics of a hundred and ninety-two tokens."""
    asked = {path: {"second", *card.needs.get(role, ())} for role, path in block.roles.items()}
    ids = tokens(4, 48)
    stats = collect(model, asked, ids.split(1))
    rows: list[Tensor] = []
    first = model.get_submodule(next(iter(block.roles.values())))
    handle = first.register_forward_pre_hook(lambda _, args: rows.append(args[0].flatten(0, -2)))
    logits(model, ids)
    handle.remove()
    names = [f"{path}.{leaf}" for path in block.roles.values() for leaf in ("weight", "bias")]
    parameters = dict(model.named_parameters())
    return Site(model, block, {n: parameters[n].detach() for n in names if n in parameters}, stats, torch.cat(rows))


def cut_block(card: Card, here: Site, keep: Any) -> Replacement:
    """The replacement that a method makes of a block, with the example's arguments."""
    options = {name: value for name, value in card.example.items() if name not in OWN}
    return card.function(here.block, here.weights, here.stats, keep, **options)


def units(card: Card, block: Block, weights: Weights) -> int:
    """The units of a block uncut: what the example's ``units`` says, or neurons, rotation pairs or value columns."""
    if "units" in card.example:
        return card.example["units"](block, weights)
    if block.kind == "mlp":
        return weights[block.roles["down"] + ".weight"].shape[1]
    return block.width // 2 if block.kind == "qk" else block.width


def site_after(here: Site, replacement: Replacement) -> Site:
    """The same place with the replaced parameters, formats densified."""
    changed = {n: v if isinstance(v, Tensor) else v.to_dense() for n, v in replacement.weights.items()}
    return replace(here, weights={**here.weights, **changed})


def predictions(here: Site, replacement: Replacement, ids: Tensor) -> Tensor:
    """The model's logits with the replacement in effect."""
    with in_effect(here.model, replacement, [here.block]):
        return logits(here.model, ids)


def outputs(here: Site, replacement: Replacement) -> Tensor:
    """The outputs of a block of kind "mlp" with the replacement in effect."""
    with torch.no_grad(), in_effect(here.model, replacement, [here.block]):
        return here.model.get_submodule(here.block.home)(here.inputs)


def loss(here: Site, replacement: Replacement) -> float:
    """The squared error that a replacement leaves, a token, of what its kind of block computes.

    "mlp": of the block's output. "vo": of every query head's map of its own token, summed over heads: attention then
    averages over tokens and heads add up. "qk": of every head's score between independent tokens at one position.
    """
    if here.block.kind == "mlp":
        off = outputs(here, replacement) - outputs(here, Replacement({}))
        return float(off.square().sum(-1).mean())
    second, off = here.second, products(site_after(here, replacement)) - products(here)
    if here.block.kind == "qk":
        return float(torch.einsum("hab,bc,hdc,da->", off, second, off, second))
    maps, constant = off[:-1, :, :], off[-1, :, -1]
    return float(torch.einsum("hoa,ab,hob->", maps, second[:-1, :-1], maps) + constant.square().sum())


def products(here: Site) -> Tensor:
    """All that a block computes, in a form in which the order of its units plays no part; float64.

    "mlp": Σ_j down_j ⊗ up_j ⊗ gate_j, (out, in + 1, in + 1). "qk": every query head's bilinear form of two tokens,
    (heads, in + 1, in + 1). Biases stand behind the inputs. "vo": every query head's map, (heads + 1, out, in), the
    last of which has what does not depend on the input in its last column.
    """
    read = {role: _with_bias(here.weights, path) for role, path in here.block.roles.items()}
    if here.block.kind == "mlp":
        return torch.einsum("oj,ja,jb->oab", read["down"][:, :-1], read["up"], read["gate"])
    share = here.block.heads // here.block.key_heads
    if here.block.kind == "qk":
        q, k = (read[r].unflatten(0, (n, -1)) for r, n in (("q", here.block.heads), ("k", here.block.key_heads)))
        return torch.einsum("hra,hrb->hab", q, k.repeat_interleave(share, 0))
    v = read["v"].unflatten(0, (here.block.key_heads, -1)).repeat_interleave(share, 0)
    o = read["o"][:, :-1].unflatten(1, (here.block.heads, -1))
    maps = torch.einsum("ohr,hra->hoa", o, v)
    constant = torch.zeros_like(maps[:1, :, :-1])
    constant[0, :, -1] = maps[..., -1].sum(0) + read["o"][:, -1]
    return torch.cat((maps[..., :-1], constant))


def _with_bias(weights: Weights, path: str) -> Tensor:
    """The weight with its bias as a last column, zero where it has none; (out, in + 1)."""
    weight = weights[path + ".weight"].double()
    bias = weights.get(path + ".bias", weight.new_zeros(len(weight))).double()
    return torch.cat((weight, bias[:, None]), 1)
