"""Blocks of matrices of a decoder that are compressed together: the only module that knows architectures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyad.models.experts import SplitExperts
from polyad.models.layer_matrices import multiplies

ROTARY = ("LlamaAttention", "MistralAttention", "MixtralAttention", "Qwen2Attention", "GraniteAttention")
"""Attention without norms or gates of its own, all of whose columns rotate, number i with i + width / 2."""
GATED = ("gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Block:
    """Matrices whose inner dimension can be cut together.

    ``kind`` is "mlp" (gate, up, down), "qk" (queries, keys) or "vo" (values, output). ``roles`` gives the path of
    each matrix. For attention, ``heads`` query heads share ``key_heads`` key and value heads of ``width`` numbers;
    rotation pairs number i with i + width / 2. ``layer`` counts the decoder's layers from 0.
    """

    path: str
    kind: str
    roles: Mapping[str, str]
    layer: int
    heads: int = 1
    key_heads: int = 1
    width: int = 0
    home: str = ""
    """Path of the module whose forward pass depends on the inner dimension."""
    within: str = ""
    """Path of the decoder's layer in which the block stands."""

    @property
    def name(self) -> str:
        return f"{self.path}:{self.kind}"


def decoder_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The decoder's layers by path, in order: the longest list of modules that holds layers with a matrix."""
    split = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, SplitExperts))
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and not path.startswith(split)
        and any(multiplies(m) for m in module.modules())
    }
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of layers; choose its modules by pattern instead")
    path = max(lists, key=lambda p: (len(lists[p]), -p.count(".")))
    return {f"{path}.{i}": layer for i, layer in enumerate(lists[path])}


def blocks(model: nn.Module, kinds: tuple[str, ...] = ("mlp", "qk", "vo")) -> list[Block]:
    """Every block of these kinds, layer by layer.

    Known are gated MLPs under their usual names, and the attention of Llama, Mistral, Mixtral, Qwen 2, Granite and
    of models that are built of theirs, such as SmolLM. Other attention is left out, since cutting its columns
    could change what it computes: that with norms on queries and keys, for one, and that which was cut before.
    """
    all_blocks: list[Block] = []
    for i, (path, layer) in enumerate(decoder_layers(model).items()):
        for inner, module in layer.named_modules():
            where = f"{path}.{inner}" if inner else path
            if "mlp" in kinds and all(isinstance(getattr(module, r, None), nn.Linear) for r in GATED):
                roles = {r.removesuffix("_proj"): f"{where}.{r}" for r in GATED}
                all_blocks.append(Block(where, "mlp", roles, i, home=where, within=path))
            rotary = type(module).__name__ in ROTARY
            if rotary and all(isinstance(getattr(module, r, None), nn.Linear) for r in ATTENTION):
                all_blocks += [b for b in _attention(model, module, where, i, path) if b.kind in kinds]
    if not all_blocks:
        raise ValueError(
            f"{type(model).__name__} has no blocks that polyad knows ({', '.join(GATED)} or {', '.join(ATTENTION)}); "
            "use a method that works layer by layer, such as lord or svd"
        )
    return all_blocks


def _attention(model: nn.Module, module: nn.Module, path: str, layer: int, within: str) -> list[Block]:
    config: Any = getattr(module, "config", None) or model.config
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    q: Any = module.get_submodule("q_proj")
    head = q.out_features // heads
    shape = {"heads": heads, "key_heads": key_heads, "width": head, "home": path, "within": within}
    q_path, k_path, v_path, o_path = (f"{path}.{role}" for role in ATTENTION)
    return [
        Block(path, "qk", {"q": q_path, "k": k_path}, layer, **shape),
        Block(path, "vo", {"v": v_path, "o": o_path}, layer, **shape),
    ]


def readers(model: nn.Module) -> dict[str, list[str]]:
    """For each normalisation of a decoder layer, the linear layers that read its output, by path.

    Known are pre-normalised decoders under Llama's names whose norms multiply by their weight. Where one of the two
    norms is missing, or another follows the MLP, the names mean something else, and the layer is left out.
    """
    by_norm: dict[str, list[str]] = {}
    norms = (("input_layernorm", "self_attn", ATTENTION[:3]), ("post_attention_layernorm", "mlp", GATED[:2]))
    for path, layer in decoder_layers(model).items():
        if hasattr(layer, "post_feedforward_layernorm") or not all(hasattr(layer, norm) for norm, _, _ in norms):
            continue
        for norm, home, roles in norms:
            module, reader = getattr(layer, norm, None), getattr(layer, home, None)
            if _multiplies(module) and all(isinstance(getattr(reader, r, None), nn.Linear) for r in roles):
                by_norm[f"{path}.{norm}"] = [f"{path}.{home}.{r}" for r in roles]
    return by_norm


def _multiplies(norm: nn.Module | None) -> bool:
    """True where a norm's output is proportional to its weight: some add 1 to it or have a bias, some have none."""
    weight = getattr(norm, "weight", None)
    if norm is None or not isinstance(weight, Tensor):
        return False
    x = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=weight.device)[None]
    other = copy.copy(norm)
    other._parameters = {**norm._parameters, "weight": nn.Parameter(2 * weight.detach())}
    with torch.no_grad():
        return bool(torch.allclose(other(x), 2 * norm(x)))
