"""Modules that wrap a model to compile, checkpoint or distribute it, and that put their own names into its paths."""

from __future__ import annotations

import re

from torch import nn

INNER = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""The names under which ``torch.compile``, activation checkpointing and FSDP hold the module that they wrap."""


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside of wrappers that compile, checkpoint or distribute it.

    >>> inner = nn.Linear(2, 2)
    >>> unwrap(nn.DataParallel(inner)) is inner, unwrap(inner) is inner
    (True, True)
    """
    while True:
        inner = next((model._modules[name] for name in INNER if name in model._modules), None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def plain_path(path: str) -> str:
    """A path without the names of wrappers.

    >>> plain_path("layers.0._orig_mod.mlp._orig_mod")
    'layers.0.mlp'
    """
    return re.sub(rf"(^|\.)({'|'.join(INNER)})(?=\.|$)", "", path).removeprefix(".")
