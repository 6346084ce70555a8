"""Adapters as folders of peft's LoRA."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from polyad._types import check_type
from polyad.adapters import Adapted, Adapters
from polyad.adapters.frozen.frozen import Frozen, suffix
from polyad.adapters.host.build import Method, frozen_weight
from polyad.adapters.host.merge import refuse_changed_biases
from polyad.adapters.host.plan import plan_adapters
from polyad.adapters.host.sites import Site
from polyad.adapters.sharded import another_process_writes
from polyad.formats import LowRank
from polyad.interop._peft_folder import CONFIG, WEIGHTS
from polyad.interop._peft_layers import refuse_unlike_peft
from polyad.interop._peft_names import PREFIX, plain_path_in, targets
from polyad.interop._peft_whole import whole_tensors
from polyad.linalg import truncated_svd
from polyad.models.folder import staged_folder
from polyad.models.source import origin
from polyad.models.surgery import Which


@dataclass(frozen=True)
class Part:
    """A weight or part of one, as the adapter that is written sees it."""

    site: Site
    base: Frozen
    dropout: float


@torch.no_grad()
def to_peft(adapters: Adapters, name: str, folder: str | Path, *, rank: int | None = None) -> dict[str, float]:
    """Write an adapter to a new folder as peft's LoRA; returns the relative error of every layer's update.

    An update that is a low-rank format is written as it is, at its own rank, with no error but rounding. Any other
    is cut to ``rank`` by a truncated SVD of its dense form, and the error is ‖ΔW - BA‖ / ‖ΔW‖ (Frobenius); without
    ``rank`` it is refused. Parts of one fused weight become one adapter of their ranks together. ``alpha`` equals the
    rank everywhere, and the scale is within B. The targets are a pattern that matches exactly the adapted layers.
    Where processes hold shards, every process must come here, and the first writes. ValueError for experts, and for
    convolutions of which peft's LoRA drops something (groups, dilation, padding other than zeros).
    """
    check_type("adapters", adapters, Adapters, "give the host of the adapters: polyad.adapters.Adapters(model)")
    numbers: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    errors: dict[str, float] = {}
    by_path = _by_path(adapters, name)
    refuse_changed_biases(adapters.layers(), name)
    dropout = _dropout([part for parts in by_path.values() for part in parts])
    for path, parts in by_path.items():
        updates = dict(adapters.layers()[path].updates(name))
        pairs = [_factors(part.site, updates[suffix(part.site.part)], rank) for part in parts]
        left, right = _together(parts, [pair[:2] for pair in pairs])
        written = plain_path_in(adapters.model, path)
        numbers |= _as_peft(written, parts[0].site, left, right)
        ranks[written], errors[path] = right.shape[0], max(pair[2] for pair in pairs)
    turned = any(part.base.transposed for parts in by_path.values() for part in parts)
    whole, settings = whole_tensors(adapters, name)
    numbers |= whole
    source = origin(adapters.model)
    base = None if source.beside is None else source.name
    config = _config(ranks, dropout=dropout, turned=turned, base=base) | settings
    if another_process_writes(adapters.model.parameters()):
        return errors
    with staged_folder(Path(folder), expect=sum(t.nbytes for t in numbers.values())) as partial_folder:
        copies = {
            key: t.contiguous().clone() for key, t in numbers.items()
        }  # layers may share a factor, files may not
        save_file(copies, partial_folder / WEIGHTS, {"format": "pt"})
        (partial_folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return errors


def refuse_other_updates(model: nn.Module, which: Which, method: Method) -> None:
    """Refuse, before it is trained, a method whose update is no low-rank format, which is all that LoRA holds."""
    site, adapter = plan_adapters(model, which, method, begin=False).adapters[0]
    if not isinstance(adapter.update(frozen_weight(site)), LowRank):
        raise ValueError(
            f"peft holds low-rank updates, and {type(adapter).__name__} makes others; save it as polyad's, or merge "
            "it with polyad merge, whose result every library loads"
        )


def _config(ranks: Mapping[str, int], *, dropout: float, turned: bool, base: str | None) -> dict[str, object]:
    """The settings of a LoRA on layers of these ranks, as peft reads them."""
    most = max(set(ranks.values()), key=list(ranks.values()).count)
    other = {f"^{re.escape(path)}": rank for path, rank in ranks.items() if rank != most}
    return {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": base, "inference_mode": True,
        "r": most, "lora_alpha": most, "lora_dropout": dropout, "fan_in_fan_out": turned,
        "target_modules": targets(ranks), "rank_pattern": other, "alpha_pattern": other, "use_rslora": False,
        "use_dora": False, "init_lora_weights": True,
    }  # fmt: skip


def _by_path(adapters: Adapters, name: str) -> dict[str, list[Part]]:
    """The weights that a name changes by their layer's path; several where a layer is fused."""
    by_site, layers = adapters.of(name), adapters.layers()
    sites = adapters.sites(name)
    for site in sites:
        if site.kind == "experts":
            raise ValueError(
                f"{site.name} holds experts, for which no LoRA of peft's can be written; merge the "
                "adapter, and save the model"
            )
    parts: dict[str, list[Part]] = {}
    for path in dict.fromkeys(site.path for site in sites):
        layer = layers[path]
        assert isinstance(layer, Adapted)
        for term in layer.routes[name]:
            site = next(site for site in sites if (site.path, site.part) == (path, term.base.part))
            refuse_unlike_peft(site.name, term.base, "LoRA")
            parts.setdefault(path, []).append(Part(site, term.base, by_site[site.name].dropout))
    return parts


def _dropout(parts: Sequence[Part]) -> float:
    """The share of inputs that the layers drop; embeddings drop none, in peft as here."""
    return max((part.dropout for part in parts if part.site.kind != "embedding"), default=0.0)


def _factors(site: Site, update: LowRank | Tensor, rank: int | None) -> tuple[Tensor, Tensor, float]:
    """B with the scale in it, A, and the relative error."""
    if isinstance(update, LowRank):
        return update.left, update.right, 0.0
    if rank is None:
        raise ValueError(
            f"the update of {site.name} is no low-rank format, which is all that peft's LoRA holds; give rank=, such "
            "as rank=16, to cut it to that rank (the error is returned), or merge and save the model"
        )
    dense = update.double()
    u, s, v = truncated_svd(dense, min(rank, *dense.shape))
    left, right = u * s.sqrt(), s.sqrt().unsqueeze(1) * v
    whole = float(dense.norm())
    error = float((dense - left @ right).norm()) / whole if whole else 0.0
    return left.float(), right.float(), error


def _together(parts: Sequence[Part], pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One pair of factors for all parts of a weight."""
    if parts[0].site.part is None:
        return pairs[0]
    rows = parts[0].base.layer
    out = int(getattr(rows, "nf", None) or rows.out_features)  # pyright: ignore[reportArgumentType]
    lefts = []
    for part, (left, _) in zip(parts, pairs, strict=True):
        assert part.site.part is not None
        lefts.append(torch.nn.functional.pad(left, (0, 0, part.site.part[0], out - part.site.part[1])))
    return torch.cat(lefts, 1), torch.cat([right for _, right in pairs], 0)


def _as_peft(path: str, site: Site, left: Tensor, right: Tensor) -> dict[str, Tensor]:
    """The two tensors under peft's names, in its shapes."""
    left, right = left.detach().cpu(), right.detach().cpu()
    if site.kind == "embedding":
        return {f"{PREFIX}{path}.lora_embedding_A": left.mT, f"{PREFIX}{path}.lora_embedding_B": right.mT}
    kernel = site.shape[2:]
    A, B = right.reshape(len(right), *site.shape[1:]), left.reshape(*left.shape, *(1 for _ in kernel))
    return {f"{PREFIX}{path}.lora_A.weight": A, f"{PREFIX}{path}.lora_B.weight": B}
