"""The model that a written file is compared with: its numbers are those of the file, its inputs rounded or not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyad.export.gguf.encoding import Encoded
from polyad.formats import Dense
from polyad.layers import Embedding, Factors, Linear


def with_numbers_of_file(model: Any, encoded: tuple[Encoded, ...]) -> Any:
    """A copy of a model in float32 that has the numbers of the file where those were rounded."""
    reference = copy.deepcopy(model).float().cpu().eval()
    for one in encoded:
        if one.restored is None:
            continue
        module = reference.get_submodule(one.piece.path)
        if isinstance(module, Linear | Embedding):
            factors = Factors(Dense(one.restored), trainable=False)
            for other in [m for m in reference.modules() if getattr(m, "weight", None) is module.weight]:
                other.weight = factors
        else:
            matrix = one.restored if module.weight.shape == one.restored.shape else one.restored.mT
            module.weight.data = matrix.contiguous()
    return reference


@contextmanager
def rounded_inputs(reference: nn.Module, encoded: tuple[Encoded, ...]) -> Iterator[None]:
    """A model whose layers round what they read as llama.cpp does: for codes to eight bits in blocks of 32."""
    containers = {one.piece.path: one.rows.container for one in encoded if one.origin != "vector"}
    if "lm_head" not in containers:
        containers["lm_head"] = next(c for path, c in containers.items() if path.endswith("embed_tokens"))
    hooks = []
    for path, container in containers.items():
        if container != "F32" and not path.endswith("embed_tokens"):
            hooks.append(reference.get_submodule(path).register_forward_pre_hook(_round_to(container)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _round_to(container: str) -> Any:
    plain = {"F16": torch.float16, "BF16": torch.bfloat16}.get(container)

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *others = inputs
        if plain is not None:
            return (x.to(plain).to(x.dtype), *others)
        short = -x.shape[-1] % 32
        blocks = nn.functional.pad(x, (0, short)).unflatten(-1, (-1, 32))
        scale = (blocks.abs().amax(-1, keepdim=True) / 127).half().to(x.dtype)
        codes = (blocks / torch.where(scale == 0, 1, scale)).round()
        return ((codes * scale).flatten(-2)[..., : x.shape[-1]], *others)

    return hook


def continue_greedily(reference: Any, prompt: list[int], count: int) -> tuple[list[int], Tensor]:
    """The tokens with which a model continues a prompt, and its log-probabilities (tokens, vocabulary) for each."""
    tokens: list[int] = []
    rows, ids, cache = [], torch.tensor([prompt]), None
    with torch.no_grad():
        for _ in range(count):
            said = reference(ids, past_key_values=cache, use_cache=True)
            rows.append(said.logits[0, -1].float().log_softmax(-1))
            tokens.append(int(rows[-1].argmax()))
            ids, cache = torch.tensor([tokens[-1:]]), said.past_key_values
    return tokens, torch.stack(rows)


def log_probabilities(reference: Any, prompt: list[int], tokens: list[int]) -> Tensor:
    """The log-probabilities (tokens, vocabulary) with which a model continues a prompt by these tokens."""
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        logits = reference(ids).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)
