"""Folders of the package peft: adapter_config.json and adapter_model.safetensors. peft itself is not needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyad.adapters import Adapter, Adapters, DoRA, LoHa, LoKr, LoRA, VeRA
from polyad.adapters.frozen import Frozen
from polyad.adapters.making import Method
from polyad.adapters.planning import Planned, plan
from polyad.adapters.saving import sites_of
from polyad.adapters.sites import KINDS, Site, literal, offered
from polyad.formats import LowRank
from polyad.linalg import truncated_svd
from polyad.models.folder import written

__all__ = ["from_peft", "is_peft", "to_peft"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
ALTERING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts with which peft also changes the weights that it adapts."""

UNREAD = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "lora_bias", "modules_to_save",
    "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora",
)  # fmt: skip
"""Settings of peft that change what an adapter computes and that nothing here does."""


def is_peft(folder: str | Path) -> bool:
    """Whether a folder looks like one of peft's."""
    return (Path(folder) / CONFIG).is_file()


def from_peft(adapters: Adapters, folder: str | Path, name: str = "peft") -> str:
    """Attach the adapter in a folder of peft's, under this name, and return the name. All or nothing.

    Read are LoRA (rank-stabilised, with patterns of ranks and alphas too), DoRA, LoHa, LoKr and VeRA, on linear,
    embedding and convolution layers where peft has them. Everything is computed as peft does. What LoKr holds as
    products of thin matrices is multiplied out, and its numbers are counted so. ValueError for what is not read:
    other methods, trained biases and whole modules, starts that altered the base, kernels in effective form; each
    says what to do.
    """
    stated, tensors = _read(Path(folder))
    adapters.refuse_name(name)
    reader = READERS.get(str(stated.get("peft_type")))
    if reader is None:
        known = ", ".join(READERS)
        raise ValueError(f"{folder} holds an adapter of the type {stated.get('peft_type')}; read are {known}")
    _refuse_settings(stated)
    layers, shared = _by_layer(tensors)
    sites = _sites(adapters, layers, Path(folder))
    method, arguments, numbers = reader(stated, sites, layers, shared)
    planned = plan(
        adapters.model, [literal(path) for path in sites], method, of=KINDS, tied=True, begin=False,
        dropout=_dropout(stated, sites.values()), **arguments,
    )  # fmt: skip
    for key, tensor in shared_numbers(planned, shared, stated).items():
        planned.bank.hold(key, tensor)
    _fill(planned, numbers)
    adapters.place(name, planned)
    return name


def to_peft(adapters: Adapters, name: str, folder: str | Path, *, rank: int | None = None) -> dict[str, float]:
    """Write an adapter to a new folder as peft's LoRA; returns the relative error of every layer's update.

    An update that is a low-rank format is written as it is, at its own rank, with no error but rounding. Any other
    is cut to ``rank`` by a truncated SVD of its dense form, and the error is ‖ΔW - BA‖ / ‖ΔW‖ (Frobenius); without
    ``rank`` it is refused. Parts of one fused weight become one adapter of their ranks together. ``alpha`` equals the
    rank everywhere, and the scale is within B. ValueError for experts and grouped convolutions.
    """
    numbers: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    errors: dict[str, float] = {}
    turned = False
    for path, own in _by_path(adapters, name).items():
        pairs = [_factors(adapter, site, base, rank) for site, adapter, base in own]
        left, right = _together([(site, *pair[:2]) for (site, _, _), pair in zip(own, pairs, strict=True)], own)
        numbers |= _as_peft(path, own[0][0], left, right)
        ranks[path], errors[path] = right.shape[0], max(pair[2] for pair in pairs)
        turned |= own[0][2].transposed
    most = max(set(ranks.values()), key=list(ranks.values()).count)
    other = {f"^{path.replace('.', chr(92) + '.')}": r for path, r in ranks.items() if r != most}
    config = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True,
        "r": most, "lora_alpha": most, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": turned,
        "target_modules": list(ranks), "rank_pattern": other, "alpha_pattern": other, "use_rslora": False,
        "use_dora": False, "init_lora_weights": True, "modules_to_save": None,
    }  # fmt: skip
    with written(Path(folder), expect=sum(t.nbytes for t in numbers.values())) as partial_folder:
        save_file({key: t.contiguous() for key, t in numbers.items()}, partial_folder / WEIGHTS, {"format": "pt"})
        (partial_folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return errors


# Reading -----------------------------------------------------------------------------------------------------


Layers = Mapping[str, Mapping[str, Tensor]]
Read = tuple[Method, dict[str, Any], dict[str, dict[str, Tensor]]]
"""The method, its arguments, and the numbers of each layer's adapter by their names in it."""


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        stated = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no adapter of peft's: {CONFIG} cannot be read ({error})") from None
    if not (folder / WEIGHTS).is_file():
        pickled = " it holds a pickle, which is not read: save it again with safe_serialization=True"
        raise ValueError(
            f"{folder / WEIGHTS} is missing;{pickled if (folder / 'adapter_model.bin').exists() else ' copy it again'}"
        )
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error}); copy the folder again") from None
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{key} in {folder} holds numbers that are NaN or infinite")
    return stated, tensors


def _refuse_settings(stated: Mapping[str, Any]) -> None:
    used = [key for key in UNREAD if stated.get(key)]
    if used:
        raise ValueError(f"the adapter was made with {used[0]}={stated[used[0]]!r}, which is not read")
    if stated.get("bias", "none") != "none":
        raise ValueError(f"the adapter was trained with bias={stated['bias']!r}; only adapters with 'none' are read")
    start = str(stated.get("init_lora_weights", True)).lower()
    if start.startswith(ALTERING):
        raise ValueError(
            f"init_lora_weights={start!r} also changes the weights adapted; save it as an ordinary LoRA with peft's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...) first"
        )


def _by_layer(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """The tensors by layer and name, and those that layers share."""
    layers: dict[str, dict[str, Tensor]] = {}
    shared: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        words = key.removeprefix(PREFIX).removesuffix(".weight").split(".")
        if "vera_A" in words or "vera_B" in words:
            shared[next(word for word in words if word.startswith("vera_"))] = tensor
            continue
        at = next((i for i, word in enumerate(words) if word.startswith(("lora_", "hada_", "lokr_", "vera_"))), None)
        if at is None or at != len(words) - 1:
            raise ValueError(f"the tensor {key} is no part of an adapter that is read; what it is for is not known")
        layers.setdefault(".".join(words[:at]), {})[words[at]] = tensor
    return layers, shared


def _sites(adapters: Adapters, layers: Layers, folder: Path) -> dict[str, Site]:
    if not layers:
        raise ValueError(f"{folder / WEIGHTS} holds no tensors of an adapter")
    there = offered(adapters.model)
    for path in layers:
        if path not in there:
            raise ValueError(f"{folder} adapts {path}, which this model does not have; it is of another model")
    return {path: site for path, site in there.items() if path in layers}


def _dropout(stated: Mapping[str, Any], sites: Any) -> float:
    """The share of inputs dropped; embeddings and mixtures have no inputs to drop."""
    share = float(stated.get("lora_dropout") or stated.get("vera_dropout") or 0.0)
    return 0.0 if any(site.kind in ("embedding", "experts") for site in sites) else share


def _setting(stated: Mapping[str, Any], key: str, path: str) -> float:
    """A setting of a layer: that of the first pattern that its path ends with, else the general one."""
    import re

    pattern = {"r": "rank_pattern"}.get(key, "alpha_pattern")
    for wanted, own in (stated.get(pattern) or {}).items():
        if re.match(rf"(.*\.)?({wanted})$", path):
            return own
    return stated[key]


def _exact(path: str, held: Mapping[str, Tensor], *names: str) -> None:
    """Refuse a layer whose tensors are not exactly these."""
    missing, extra = sorted(set(names) - held.keys()), sorted(held.keys() - set(names))
    if missing or extra:
        raise ValueError(f"{path} misses the tensors {missing} and has {extra}, which are not read")


def _lora(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    dora = bool(stated.get("use_dora"))
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    numbers: dict[str, dict[str, Tensor]] = {}
    for path, site in sites.items():
        held = layers[path]
        looked = site.kind == "embedding"
        a, b = ("lora_embedding_A", "lora_embedding_B") if looked else ("lora_A", "lora_B")
        _exact(path, held, a, b, *(["lora_magnitude_vector"] if dora else []))
        if dora and looked:
            raise ValueError(f"{path} is an embedding, whose columns peft's DoRA scales; only rows are scaled here")
        A, B = (held[b].mT, held[a].mT) if looked else (held[a].flatten(1), held[b].flatten(1))
        rank = len(A)
        alpha = float(_setting(stated, "lora_alpha", path))
        ranks[literal(path)] = rank
        alphas[literal(path)] = alpha * rank**0.5 if stated.get("use_rslora") else alpha
        numbers[path] = {"direction.A": A, "direction.B": B} if dora else {"A": A, "B": B}
        if dora:
            numbers[path]["magnitude"] = held["lora_magnitude_vector"].flatten()
    return DoRA if dora else LoRA, {"rank": ranks, "alpha": alphas}, numbers


def _loha(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    numbers: dict[str, dict[str, Tensor]] = {}
    for path in sites:
        held = layers[path]
        _exact(path, held, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        numbers[path] = {
            f"{ours}{i}": held[f"hada_w{i}_{half}"] for i in "12" for ours, half in (("B", "a"), ("A", "b"))
        }
    ranks = {literal(path): len(own["A1"]) for path, own in numbers.items()}
    return LoHa, {"rank": ranks, "alpha": {literal(p): float(_setting(stated, "alpha", p)) for p in sites}}, numbers


def _lokr(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    numbers: dict[str, dict[str, Tensor]] = {}
    factors: dict[str, tuple[int, int]] = {}
    alphas: dict[str, float] = {}
    for path in sites:
        held = layers[path]
        wanted = [
            n for i in "12" for n in ([f"lokr_w{i}"] if f"lokr_w{i}" in held else [f"lokr_w{i}_a", f"lokr_w{i}_b"])
        ]
        _exact(path, held, *wanted)
        first, second = (
            held[f"lokr_w{i}"] if f"lokr_w{i}" in held else held[f"lokr_w{i}_a"] @ held[f"lokr_w{i}_b"] for i in "12"
        )
        factors[literal(path)] = (first.shape[0], first.shape[1])
        alphas[literal(path)] = float(_setting(stated, "alpha", path)) / float(_setting(stated, "r", path))
        numbers[path] = {"factors.first": first[None], "factors.second": second.flatten(1)[None]}
    return LoKr, {"factor": factors, "alpha": alphas}, numbers


def _vera(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    numbers: dict[str, dict[str, Tensor]] = {}
    for path in sites:
        _exact(path, layers[path], "vera_lambda_b", "vera_lambda_d")
        numbers[path] = {"b": layers[path]["vera_lambda_b"], "d": layers[path]["vera_lambda_d"]}
    return VeRA, {"rank": int(stated["r"])}, numbers


READERS: dict[str, Callable[..., Read]] = {"LORA": _lora, "LOHA": _loha, "LOKR": _lokr, "VERA": _vera}


def shared_numbers(planned: Planned, shared: Mapping[str, Tensor], stated: Mapping[str, Any]) -> dict[str, Tensor]:
    """What peft's layers share, cut for each shape of layer; drawn as peft draws it where the folder leaves it out."""
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


def _fill(planned: Planned, numbers: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Give the planned adapters their numbers, and what follows from the weight."""
    for site, adapter in planned.adapters:
        own, given = adapter.state_dict(), numbers[site.path]
        for key, tensor in own.items():
            if tensor.shape != given[key].shape:
                raise ValueError(
                    f"{site.name} needs {key} of shape {tuple(tensor.shape)} and the folder holds "
                    f"{tuple(given[key].shape)}; it is of another model"
                )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(given[key])


# Writing -----------------------------------------------------------------------------------------------------


Own = tuple[Site, Adapter, Frozen]


def _by_path(adapters: Adapters, name: str) -> dict[str, list[Own]]:
    """The adapters of a name by their layer's path; several where a layer is fused."""
    own = adapters.of(name)
    found: dict[str, list[Own]] = {}
    for site in sites_of(adapters, name):
        if site.kind == "experts":
            raise ValueError(f"{site.name} holds experts, for which peft has no LoRA that is written here")
        layer: Any = adapters.layers()[site.path]
        base = next(term.base for term in layer.routes[name] if term.base.part == site.part)
        if getattr(base, "groups", 1) != 1:
            raise ValueError(f"{site.name} is a convolution of {base.groups} groups, for which no LoRA is written")  # pyright: ignore[reportAttributeAccessIssue]
        found.setdefault(site.path, []).append((site, own[site.name], base))
    return found


@torch.no_grad()
def _factors(adapter: Adapter, site: Site, base: Frozen, rank: int | None) -> tuple[Tensor, Tensor, float]:
    """B with the scale in it, A, and the relative error."""
    update = adapter.update(base)
    if isinstance(update, LowRank):
        return update.left * adapter.scale, update.right, 0.0
    if rank is None:
        raise ValueError(
            f"the update of {site.name} is no low-rank format; give rank=, to which it is cut at an error that is told"
        )
    dense = base.dense(update).flatten(1).double() * adapter.scale
    u, s, v = truncated_svd(dense, min(rank, *dense.shape))
    left, right = u * s.sqrt(), s.sqrt().unsqueeze(1) * v
    whole = float(dense.norm())
    error = float((dense - left @ right).norm()) / whole if whole else 0.0
    return left.float(), right.float(), error


def _together(pairs: Sequence[tuple[Site, Tensor, Tensor]], own: Sequence[Own]) -> tuple[Tensor, Tensor]:
    """One pair of factors for all parts of a weight."""
    if pairs[0][0].part is None:
        return pairs[0][1], pairs[0][2]
    rows = own[0][2].layer
    out = int(getattr(rows, "nf", None) or rows.out_features)  # pyright: ignore[reportArgumentType]
    lefts = []
    for site, left, _ in pairs:
        assert site.part is not None
        lefts.append(torch.nn.functional.pad(left, (0, 0, site.part[0], out - site.part[1])))
    return torch.cat(lefts, 1), torch.cat([right for _, _, right in pairs], 0)


def _as_peft(path: str, site: Site, left: Tensor, right: Tensor) -> dict[str, Tensor]:
    """The two tensors under peft's names, in its shapes."""
    left, right = left.detach().cpu(), right.detach().cpu()
    if site.kind == "embedding":
        return {f"{PREFIX}{path}.lora_embedding_A": left.mT, f"{PREFIX}{path}.lora_embedding_B": right.mT}
    kernel = site.shape[2:]
    A, B = right.reshape(len(right), *site.shape[1:]), left.reshape(*left.shape, *(1 for _ in kernel))
    return {f"{PREFIX}{path}.lora_A.weight": A, f"{PREFIX}{path}.lora_B.weight": B}
