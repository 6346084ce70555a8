"""Weights that a model divides in place before it runs: they are stored as they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def weights_before_division(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model, by name, as they are before it runs for inference.

    RWKV then divides the outputs of its later blocks by powers of two, and would divide once more what is loaded.
    """
    whole = dict(tensors)
    for path, module in model.named_modules():
        rwkv: Any = module
        if not getattr(rwkv, "layers_are_rescaled", False):
            continue
        for i in range(len(rwkv.blocks)):
            factor = 2 ** (i // rwkv.config.rescale_every) if rwkv.config.rescale_every > 0 else 1
            for part in ("attention.output.weight", "feed_forward.value.weight"):
                name = f"{path}.blocks.{i}.{part}".lstrip(".")
                if factor > 1 and name in whole:
                    whole[name] = whole[name].detach() * factor
    return whole


def forget_division(twin: nn.Module) -> nn.Module:
    """Let a twin of a model divide its weights in its next pass, as the model did in its first. Returns it."""
    for module in twin.modules():
        if getattr(module, "layers_are_rescaled", False):
            vars(module)["layers_are_rescaled"] = False
    return twin
