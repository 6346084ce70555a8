"""The methods of peft's that are read, as methods of polyad: arguments by layer, and numbers by name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyad.adapters import DoRA, LoHa, LoKr, LoRA, VeRA
from polyad.adapters.host.build import Method
from polyad.adapters.host.plan import Plan
from polyad.adapters.host.sites import Site, literal

Layers = Mapping[str, Mapping[str, Tensor]]
Read = tuple[Method, dict[str, Any], dict[str, dict[str, Tensor]]]
"""The method, its arguments, and the numbers of each layer's adapter by their names in it."""


LONGEST, REPEATS = 2000, 3
"""Bounds of patterns of layers that a folder states."""


def _layer_setting(stated: Mapping[str, Any], key: str, path: str) -> float:
    """A setting of a layer: that of the first pattern that its path ends with, else the general one."""
    pattern = {"r": "rank_pattern"}.get(key, "alpha_pattern")
    for wanted, value in (stated.get(pattern) or {}).items():
        if layer_pattern(wanted).match(path):
            return value
    return stated[key]


@functools.lru_cache
def layer_pattern(wanted: str) -> re.Pattern[str]:
    """peft's pattern for the ends of paths, compiled; one that could take for ever is refused.

    That takes two unbounded repetitions, one in the other or many after each other.
    """
    unbounded = len(re.findall(r"(?<!\\)[*+]|\{\d*,\d*\}", wanted))
    nested = re.search(r"[*+}][^()]*\)+\s*[*+{]", wanted) or (unbounded and re.search(r"\)[*+{]", wanted))
    if len(wanted) > LONGEST or unbounded > REPEATS or nested or re.search(r"\\\d|\(\?(?!:)", wanted):
        raise ValueError(
            f"the pattern {wanted[:60]!r} is longer than {LONGEST} characters, repeats more than {REPEATS} times or "
            "what is repeated already, or looks around: it could take for ever; name the layers by their paths"
        )
    try:
        return re.compile(rf"(.*\.)?({wanted})$")
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"the pattern {wanted[:60]!r} is no regular expression ({error}); name the layers by their paths"
        ) from None


def _refuse_other_tensors(path: str, tensors: Mapping[str, Tensor], *names: str) -> None:
    """Refuse a layer whose tensors are not exactly these."""
    missing, extra = sorted(set(names) - tensors.keys()), sorted(tensors.keys() - set(names))
    if missing or extra:
        raise ValueError(
            f"{path} lacks the tensors {missing} and has {extra}, which no adapter of this kind has; copy "
            "the folder again"
        )


def _lora(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    dora = bool(stated.get("use_dora"))
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    numbers: dict[str, dict[str, Tensor]] = {}
    for path, site in sites.items():
        tensors = layers[path]
        looked = site.kind == "embedding"
        a, b = ("lora_embedding_A", "lora_embedding_B") if looked else ("lora_A", "lora_B")
        _refuse_other_tensors(path, tensors, a, b, *(["lora_magnitude_vector"] if dora else []))
        groups = getattr(site.layer, "groups", 1)
        if groups != 1:
            raise ValueError(
                f"{path} is a convolution of {groups} groups, in which peft's LoRA mixes the groups' inputs, so "
                "that it is no change of the weight and cannot be read"
            )
        if dora and looked:
            raise ValueError(f"{path} is an embedding, whose columns peft's DoRA scales; only rows are scaled here")
        A, B = (tensors[b].mT, tensors[a].mT) if looked else (tensors[a].flatten(1), tensors[b].flatten(1))
        rank = len(A)
        alpha = float(_layer_setting(stated, "lora_alpha", path))
        ranks[literal(path)] = rank
        alphas[literal(path)] = alpha * rank**0.5 if stated.get("use_rslora") else alpha
        numbers[path] = {"direction.A": A, "direction.B": B} if dora else {"A": A, "B": B}
        if dora:
            numbers[path]["magnitude"] = tensors["lora_magnitude_vector"].flatten()
    return DoRA if dora else LoRA, {"rank": ranks, "alpha": alphas}, numbers


def _loha(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    numbers: dict[str, dict[str, Tensor]] = {}
    for path in sites:
        tensors = layers[path]
        _refuse_other_tensors(path, tensors, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        numbers[path] = {
            f"{ours}{i}": tensors[f"hada_w{i}_{half}"] for i in "12" for ours, half in (("B", "a"), ("A", "b"))
        }
    ranks = {literal(path): len(tensors["A1"]) for path, tensors in numbers.items()}
    return (
        LoHa,
        {"rank": ranks, "alpha": {literal(p): float(_layer_setting(stated, "alpha", p)) for p in sites}},
        numbers,
    )


def _lokr(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    numbers: dict[str, dict[str, Tensor]] = {}
    factors: dict[str, tuple[int, int]] = {}
    alphas: dict[str, float] = {}
    for path in sites:
        tensors = layers[path]
        wanted = [
            n for i in "12" for n in ([f"lokr_w{i}"] if f"lokr_w{i}" in tensors else [f"lokr_w{i}_a", f"lokr_w{i}_b"])
        ]
        _refuse_other_tensors(path, tensors, *wanted)
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
        alphas[literal(path)] = float(_layer_setting(stated, "alpha", path)) / float(
            _layer_setting(stated, "r", path)
        )
        numbers[path] = {"factors.first": first[None], "factors.second": second.flatten(1)[None]}
    return LoKr, {"factor": factors, "alpha": alphas}, numbers


def _vera(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    numbers: dict[str, dict[str, Tensor]] = {}
    for path in sites:
        _refuse_other_tensors(path, layers[path], "vera_lambda_b", "vera_lambda_d")
        numbers[path] = {"b": layers[path]["vera_lambda_b"], "d": layers[path]["vera_lambda_d"]}
    return VeRA, {"rank": int(stated["r"])}, numbers


READERS: dict[str, Callable[..., Read]] = {"LORA": _lora, "LOHA": _loha, "LOKR": _lokr, "VERA": _vera}


def shared_numbers(planned: Plan, shared: Mapping[str, Tensor], stated: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that peft's layers share, cut for each shape of layer; drawn as peft does where there are none."""
    wanted = {key: tuple(t.shape) for key, t in planned.bank._buffers.items() if t is not None}
    if not wanted:
        return {}
    rank = int(stated["r"])
    A, B = shared.get("vera_A"), shared.get("vera_B")
    if A is None or B is None:
        draws = torch.Generator().manual_seed(int(stated["projection_prng_key"]))
        A, B = (
            torch.empty(shape).uniform_(-((6 / shape[1]) ** 0.5), (6 / shape[1]) ** 0.5, generator=draws)
            for shape in (
                (rank, max(shape[1] for key, shape in wanted.items() if key.startswith("A_"))),
                (max(shape[0] for key, shape in wanted.items() if key.startswith("B_")), rank),
            )
        )
    return {key: (A if key.startswith("A_") else B)[: shape[0], : shape[1]] for key, shape in wanted.items()}
