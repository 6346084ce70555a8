"""Training of modules that replace those of a model at their paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad._callback import Callback
from polyad.models import replace
from polyad.train.descend import descend
from polyad.train.state import fingerprint


def heal(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    rows: Callable[[int], Tensor],
    *,
    steps: int = 100,
    rate: float = 1e-4,
    state: str | Path | None = None,
    asked: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
) -> list[float]:
    """Train ``modules`` so that the model predicts with them as it does with its own. Returns the divergences.

    ``rows(step)`` are token ids (batch, tokens). The loss is the mean divergence, in nats a token, of the changed
    model's next-token distribution from the model's own, which is the teacher: nothing is held twice. Only parameters
    of ``modules`` are trained, with Adam (``descend``; ``state`` and ``asked`` as there, and a state of another model
    is refused), and the model is left as it was: put the modules in with ``polyad.models.replace``. A step costs two
    forward passes and a backward one.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from polyad.attention import transmla
    >>> sizes = {"hidden_size": 32, "intermediate_size": 8, "num_attention_heads": 4, "vocab_size": 9}
    >>> model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, num_key_value_heads=2, **sizes))
    >>> latent = transmla(model)
    >>> max(heal(model, latent, lambda step: torch.ones(1, 8, dtype=torch.int64), steps=2)) < 1e-4
    True
    """
    if not modules:
        raise ValueError("modules is empty; give those to train, such as polyad.attention.transmla makes")
    if state is not None:
        asked = {**(asked or {}), "model": fingerprint(model)}
    trained = {id(p): p for module in modules.values() for p in module.parameters()}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in trained]

    def loss(step: int) -> Tensor:
        ids = rows(step)
        with torch.no_grad():
            expected = model(ids, use_cache=False).logits.flatten(0, 1).float().log_softmax(-1)
        undo = replace(model, modules)
        try:
            predicted = model(ids, use_cache=False).logits.flatten(0, 1).float().log_softmax(-1)
        finally:
            undo()
        return F.kl_div(predicted, expected, log_target=True, reduction="batchmean")

    for p in frozen:
        p.requires_grad_(False)
    try:
        return descend(
            trained.values(), loss, steps=steps, rate=rate, stage="healing", clip=1.0, state=state, asked=asked,
            callback=callback,
        )  # fmt: skip
    finally:
        for p in frozen:
            p.requires_grad_(True)
