"""The items of a step: the layers, or the blocks of layers that are cut together, on which it works."""

from __future__ import annotations

from collections.abc import Collection, Container

from torch import nn

from polyad.compress.block_item import BlockItem
from polyad.compress.cut_proof import cut_refusals
from polyad.compress.item import Item
from polyad.compress.layer_item import LayerItem
from polyad.compress.recipe import Step
from polyad.models.blocks import blocks
from polyad.models.twin import Twin


def items(
    model: nn.Module, step: Step, targets: Collection[str], twin: Twin, names: Container[str] = ()
) -> list[Item]:
    """The items of a step among the selected layers, in the model's order; a rescaling has none.

    Those called ``names`` were shown to be ones before. Of others, blocks are left out whose cut would change more
    than it leaves out: one forward pass of each, in the model's ``twin``, tells.
    """
    if step.kind == "rescale":
        return []
    if step.kind != "group":
        return [LayerItem(step, path) for path in targets]
    whole = [b for b in blocks(model, step.rules) if all(path in targets for path in b.roles.values())]
    if not whole:
        raise ValueError(
            f"{step.card.name} cuts matrices together ({', '.join(step.rules)}), and the selection holds no block "
            "whole; select '*mlp*' or '*attn*', or leave the selection out"
        )
    refusals = cut_refusals(twin, [block for block in whole if block.name not in names])
    if len(refusals) == len(whole):
        name, said = next(iter(refusals.items()))
        raise ValueError(
            f"{step.card.name} cannot cut the blocks of {type(model).__name__} (of {name}, {said}); use a method "
            "that works layer by layer, such as lord or svd"
        )
    return [BlockItem(step, block) for block in whole if block.name not in refusals]
