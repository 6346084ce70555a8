"""The methods of peft's that are read, as methods of polyad: arguments by layer, and numbers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyad.adapters import DoRA, LoHa, LoKr, LoRA, VeRA, matrix
from polyad.adapters.host.build import frozen_weight
from polyad.adapters.host.plan import AdapterPlan
from polyad.adapters.host.sites import Site, literal
from polyad.interop._peft_layers import refuse_unlike_peft
from polyad.interop._peft_multiplicative import read_ia3, read_oft
from polyad.interop._peft_names import layer_setting
from polyad.interop._peft_reading import Layers, Read, refuse_other_shapes, refuse_other_tensors


def _lora(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    dora = bool(stated.get("use_dora"))
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    numbers: dict[str, dict[str, Tensor]] = {}
    for path, site in sites.items():
        tensors = layers[path]
        looked = site.kind == "embedding"
        a, b = ("lora_embedding_A", "lora_embedding_B") if looked else ("lora_A", "lora_B")
        refuse_other_tensors(path, tensors, a, b, *(["lora_magnitude_vector"] if dora else []))
        refuse_other_shapes(path, tensors, a, b)
        refuse_unlike_peft(path, frozen_weight(site), "LoRA")
        if dora and looked:
            raise ValueError(f"{path} is an embedding, whose columns peft's DoRA scales; only rows are scaled here")
        A, B = (tensors[b].mT, tensors[a].mT) if looked else (tensors[a], tensors[b])
        if site.kind == "experts" and dora:
            raise ValueError(f"{path} holds experts, for which peft has no DoRA; copy the folder again")
        A, B = (A, B) if site.kind == "experts" else (A.flatten(1), B.flatten(1))
        rank = A.shape[-2]
        alpha = float(layer_setting(stated, "lora_alpha", path, 8))
        ranks[literal(path)] = rank
        alphas[literal(path)] = alpha * rank**0.5 if stated.get("use_rslora") else alpha
        numbers[path] = {"direction.A": A, "direction.B": B} if dora else {"A": A, "B": B}
        if dora:
            numbers[path]["magnitude"] = tensors["lora_magnitude_vector"].flatten()
    return DoRA if dora else LoRA, {"rank": ranks, "alpha": alphas, **_beyond(ranks, sites)}, numbers


def _beyond(ranks: Mapping[str, int], sites: Mapping[str, Site]) -> dict[str, bool]:
    """The argument that allows ranks above a layer's shorter side, where there are such."""
    return {"beyond": True} if any(ranks[literal(p)] > min(matrix(s.shape)) for p, s in sites.items()) else {}


def _loha(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    numbers: dict[str, dict[str, Tensor]] = {}
    for path, site in sites.items():
        tensors = layers[path]
        refuse_unlike_peft(path, frozen_weight(site), "LoHa")
        halves = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        refuse_other_tensors(path, tensors, *halves)
        refuse_other_shapes(path, tensors, *halves)
        numbers[path] = {
            f"{ours}{i}": tensors[f"hada_w{i}_{half}"] for i in "12" for ours, half in (("B", "a"), ("A", "b"))
        }
    ranks = {literal(path): len(tensors["A1"]) for path, tensors in numbers.items()}
    alphas = {literal(path): float(layer_setting(stated, "alpha", path, 8)) for path in sites}
    return LoHa, {"rank": ranks, "alpha": alphas, **_beyond(ranks, sites)}, numbers


def _lokr(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    numbers: dict[str, dict[str, Tensor]] = {}
    factors: dict[str, tuple[int, int]] = {}
    alphas: dict[str, float] = {}
    for path, site in sites.items():
        tensors = layers[path]
        refuse_unlike_peft(path, frozen_weight(site), "LoKr")
        wanted = [
            n for i in "12" for n in ([f"lokr_w{i}"] if f"lokr_w{i}" in tensors else [f"lokr_w{i}_a", f"lokr_w{i}_b"])
        ]
        refuse_other_tensors(path, tensors, *wanted)
        refuse_other_shapes(path, tensors, *wanted)
        first, second = (
            tensors[f"lokr_w{i}"] if f"lokr_w{i}" in tensors else tensors[f"lokr_w{i}_a"] @ tensors[f"lokr_w{i}_b"]
            for i in "12"
        )
        if second.ndim == 3:
            raise ValueError(
                f"the second factor of {path} has shape {tuple(second.shape)}, of which peft makes an update of a "
                "one-dimensional convolution that is no Kronecker product and cannot be read"
            )
        factors[literal(path)] = (first.shape[0], first.shape[1])
        alpha, rank = layer_setting(stated, "alpha", path, 8), layer_setting(stated, "r", path, 8)
        alphas[literal(path)] = float(alpha) / float(rank)
        numbers[path] = {"factors.first": first[None], "factors.second": second.flatten(1)[None]}
    return LoKr, {"factor": factors, "alpha": alphas}, numbers


def _vera(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    numbers: dict[str, dict[str, Tensor]] = {}
    for path in sites:
        refuse_other_tensors(path, layers[path], "vera_lambda_b", "vera_lambda_d")
        numbers[path] = {"b": layers[path]["vera_lambda_b"], "d": layers[path]["vera_lambda_d"]}
    return VeRA, {"rank": int(stated.get("r", 256))}, numbers


READERS: dict[str, Callable[..., Read]] = {
    "LORA": _lora, "LOHA": _loha, "LOKR": _lokr, "VERA": _vera, "IA3": read_ia3, "OFT": read_oft,
}  # fmt: skip


def shared_numbers(
    planned: AdapterPlan, shared: Mapping[str, Tensor], stated: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The tensors that peft's layers share, cut for each shape of layer; drawn as peft does where there are none."""
    wanted = {key: tuple(t.shape) for key, t in planned.bank._buffers.items() if t is not None}
    if not wanted:
        return {}
    rank = int(stated.get("r", 256))
    A, B = shared.get("vera_A"), shared.get("vera_B")
    if A is None or B is None:
        draws = torch.Generator().manual_seed(int(stated.get("projection_prng_key", 0)))
        A, B = (
            torch.empty(shape).uniform_(-((6 / shape[1]) ** 0.5), (6 / shape[1]) ** 0.5, generator=draws)
            for shape in (
                (rank, max(shape[1] for key, shape in wanted.items() if key.startswith("A_"))),
                (max(shape[0] for key, shape in wanted.items() if key.startswith("B_")), rank),
            )
        )
    return {key: (A if key.startswith("A_") else B)[: shape[0], : shape[1]] for key, shape in wanted.items()}
