"""The model that a written file is compared with: its numbers are those of the file, its inputs rounded or not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyad.export.gguf.containers import BLOCK, GRIDS, PLAIN, Rows
from polyad.export.gguf.encoding import Encoded
from polyad.export.gguf.superblocks import K_GRIDS, WIDE
from polyad.formats import Dense, Sum
from polyad.interop.gguf_files import block_bytes
from polyad.layers import Embedding, Factors, Linear
from polyad.layers.kernels import prepare_layers


def with_numbers_of_file(model: Any, encoded: tuple[Encoded, ...]) -> Any:
    """A copy of a model in float32 that has the numbers of the file where those were rounded.

    It multiplies exactly: what packed kernels round off is not to be taken for what an engine may.
    """
    reference = prepare_layers(copy.deepcopy(model).float().cpu().eval(), "plain")
    for one in encoded:
        if one.restored is None:
            continue
        module = reference.get_submodule(one.piece.path)
        if isinstance(module, Linear | Embedding):
            base = Dense(one.restored)
            factors = Factors(base if one.beside is None else Sum((base, one.beside)), trainable=False)
            for other in [m for m in reference.modules() if getattr(m, "weight", None) is module.weight]:
                other.weight = factors
        else:
            matrix = one.restored if module.weight.shape == one.restored.shape else one.restored.mT
            module.weight.data = matrix.contiguous()
    return reference


@contextmanager
def rounded_inputs(reference: nn.Module, encoded: tuple[Encoded, ...]) -> Iterator[None]:
    """A model whose layers round what they read as llama.cpp does: for codes to eight bits in blocks of 32 or 256."""
    rows = {one.piece.path: one.rows for one in encoded if one.origin != "vector"}
    table = next(path for path in rows if path.endswith("embed_tokens"))
    rows.setdefault("lm_head", rows[table])
    hooks = []
    for path, stored in rows.items():
        if path != table and stored.container != "F32":
            rounding = _Rounding(stored)
            module = reference.get_submodule(path)
            hooks += [module.register_forward_pre_hook(rounding.before)]
            hooks += [module.register_forward_hook(rounding.after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Rounding:
    """The rounding of the input of one layer; with minima also that of its sums over blocks."""

    def __init__(self, rows: Rows) -> None:
        self.plain = PLAIN.get(rows.container)
        self.low, self.rest = None, torch.empty(0)
        self.block = WIDE if rows.container in K_GRIDS else BLOCK
        if GRIDS.get(rows.container, (0, False))[1]:
            blocks = torch.from_numpy(rows.stored).unflatten(1, (-1, block_bytes(rows.container)))
            self.low = blocks[:, :, 2:4].contiguous().view(torch.float16).squeeze(-1).float()  # (out, blocks)

    def before(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *others = inputs
        if self.plain is not None:
            return (x.to(self.plain).to(x.dtype), *others)
        blocks = nn.functional.pad(x, (0, -x.shape[-1] % self.block)).unflatten(-1, (-1, self.block))
        step = blocks.abs().amax(-1, keepdim=True) / 127
        codes = (blocks / torch.where(step == 0, 1, step)).round()  # before the step itself becomes float16
        scale = step if self.block == WIDE else step.half().to(x.dtype)
        total = codes.sum(-1, keepdim=True)
        self.rest = ((total * step).half().to(x.dtype) - total * scale).squeeze(-1)  # (…, blocks)
        return ((codes * scale).flatten(-2)[..., : x.shape[-1]], *others)

    def after(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output if self.low is None else output + self.rest @ self.low.mT


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
