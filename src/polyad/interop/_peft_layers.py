"""Layers on which peft's adapters compute something else than a change of the weight."""

from __future__ import annotations

from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.frozen.layer_kinds import FrozenConv


def refuse_unlike_peft(name: str, base: Frozen, method: str) -> None:
    """Refuse a convolution of which peft's LoRA, LoHa and LoKr drop something in their own forward pass.

    LoRA's first factor is a convolution with the layer's kernel, stride and padding alone, of no groups and no
    dilation; LoHa and LoKr keep those two. All pad with zeros. What makes no difference is not refused.
    """
    if not isinstance(base, FrozenConv):
        return
    wide = any(side > 1 and step > 1 for side, step in zip(base.kernel, base.geometry["dilation"], strict=True))
    drops = ""
    if method == "LoRA" and base.groups != 1:
        drops = f"of {base.groups} groups, in which peft's LoRA mixes the groups' inputs"
    elif method == "LoRA" and wide:
        drops = f"with dilation {base.geometry['dilation']}, which peft's LoRA leaves out"
    elif base.mode != "constant" and any(base.pads):
        drops = f"with padding_mode={base.mode!r}, in the place of which peft's {method} pads with zeros"
    if drops:
        raise ValueError(
            f"{name} is a convolution {drops}, so that it is no change of the weight and can be neither read nor "
            "written; leave this layer out, or merge the adapter and save the model"
        )
