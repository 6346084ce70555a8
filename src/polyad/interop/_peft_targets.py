"""The layers that the settings of a folder of peft's name, by peft's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from polyad.adapters.host.sites import Site
from polyad.interop._peft_names import PREFIX, compiled, refuse_endless, unwrapped_path


def refuse_missing(stated: Mapping[str, Any], sites: Iterable[Site], present: Mapping[str, Any]) -> None:
    """Refuse a folder that has no tensors for a layer that its settings name; peft would leave it as it is."""
    missing = [
        site.path for site in sites if site.path not in present and _is_named(stated, unwrapped_path(site.path))
    ]
    if missing:
        raise ValueError(
            f"target_modules={stated['target_modules']!r} names {len(missing)} layers of this model of which the "
            f"folder has no tensors, such as {PREFIX}{missing[0]}.{_tensor(stated)}; copy the folder again, or load "
            "it onto the model it is of"
        )


def _tensor(stated: Mapping[str, Any]) -> str:
    """The first tensor that peft writes for a layer."""
    names = {"LORA": "lora_A.weight", "LOHA": "hada_w1_a", "LOKR": "lokr_w1", "VERA": "vera_lambda_b",
             "IA3": "ia3_l", "OFT": "oft_R.weight"}  # fmt: skip
    return names.get(str(stated.get("peft_type")), "*")


def _is_named(stated: Mapping[str, Any], path: str) -> bool:
    """True where peft would adapt the layer at this path; False where only the model's kind says which."""
    targets = stated.get("target_modules")
    if not targets or (isinstance(targets, str) and targets.lower() == "all-linear"):
        return False
    if _matches(stated.get("exclude_modules"), path) or not _matches(targets, path):
        return False
    indices = stated.get("layers_to_transform")
    if isinstance(targets, str) or path in targets or indices is None or indices == []:
        return True
    index = _block_index(path, stated.get("layers_pattern"))
    return index is not None and index in (indices if isinstance(indices, list) else [indices])


def _matches(names: Any, path: str) -> bool:
    """True where a regular expression matches all of a path, or where it is one of these names or ends with one."""
    if not names:
        return False
    if isinstance(names, str):
        refuse_endless(names)
        return compiled(names).fullmatch(path) is not None
    return any(path == name or path.endswith(f".{name}") for name in names)


def _block_index(path: str, patterns: Any) -> int | None:
    """The number of the block that a layer is in: the first behind two names where no patterns say which."""
    if not patterns:
        return next((int(word) for word in path.split(".")[2:-1] if word.isdigit()), None)
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        refuse_endless(pattern)
        match = compiled(rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\.").match(path)
        if match is not None:
            return int(match["index"])
    return None
