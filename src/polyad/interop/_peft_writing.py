"""Adapters as folders of peft's LoRA."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from polyad.adapters import Adapter, Adapters
from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.host.sites import Site
from polyad.formats import LowRank
from polyad.linalg import truncated_svd
from polyad.models.folder import staged_folder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


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
    for path, parts in _by_path(adapters, name).items():
        pairs = [_factors(adapter, site, base, rank) for site, adapter, base in parts]
        left, right = _together([(site, *pair[:2]) for (site, _, _), pair in zip(parts, pairs, strict=True)], parts)
        numbers |= _as_peft(path, parts[0][0], left, right)
        ranks[path], errors[path] = right.shape[0], max(pair[2] for pair in pairs)
        turned |= parts[0][2].transposed
    most = max(set(ranks.values()), key=list(ranks.values()).count)
    other = {f"^{path.replace('.', chr(92) + '.')}": r for path, r in ranks.items() if r != most}
    config = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True,
        "r": most, "lora_alpha": most, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": turned,
        "target_modules": list(ranks), "rank_pattern": other, "alpha_pattern": other, "use_rslora": False,
        "use_dora": False, "init_lora_weights": True, "modules_to_save": None,
    }  # fmt: skip
    with staged_folder(Path(folder), expect=sum(t.nbytes for t in numbers.values())) as partial_folder:
        copies = {
            key: t.contiguous().clone() for key, t in numbers.items()
        }  # layers may share a factor, files may not
        save_file(copies, partial_folder / WEIGHTS, {"format": "pt"})
        (partial_folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return errors


Part = tuple[Site, Adapter, Frozen]


def _by_path(adapters: Adapters, name: str) -> dict[str, list[Part]]:
    """The adapters of a name by their layer's path; several where a layer is fused."""
    by_site = adapters.of(name)
    parts: dict[str, list[Part]] = {}
    for site in adapters.sites(name):
        if site.kind == "experts":
            raise ValueError(
                f"{site.name} holds experts, for which no LoRA of peft's can be written; merge the "
                "adapter, and save the model"
            )
        layer: Any = adapters.layers()[site.path]
        base = next(term.base for term in layer.routes[name] if term.base.part == site.part)
        if getattr(base, "groups", 1) != 1:
            raise ValueError(
                f"{site.name} is a convolution of {base.groups} groups, for which no LoRA can be written"
            )  # pyright: ignore[reportAttributeAccessIssue]
        parts.setdefault(site.path, []).append((site, by_site[site.name], base))
    return parts


@torch.no_grad()
def _factors(adapter: Adapter, site: Site, base: Frozen, rank: int | None) -> tuple[Tensor, Tensor, float]:
    """B with the scale in it, A, and the relative error."""
    update = adapter.update(base)
    if isinstance(update, LowRank):
        return update.left * adapter.scale, update.right, 0.0
    if rank is None:
        raise ValueError(
            f"the update of {site.name} is no low-rank format; give rank= to cut it; the error is returned"
        )
    dense = base.dense(update).flatten(1).double() * adapter.scale
    u, s, v = truncated_svd(dense, min(rank, *dense.shape))
    left, right = u * s.sqrt(), s.sqrt().unsqueeze(1) * v
    whole = float(dense.norm())
    error = float((dense - left @ right).norm()) / whole if whole else 0.0
    return left.float(), right.float(), error


def _together(pairs: Sequence[tuple[Site, Tensor, Tensor]], parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """One pair of factors for all parts of a weight."""
    if pairs[0][0].part is None:
        return pairs[0][1], pairs[0][2]
    rows = parts[0][2].layer
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
