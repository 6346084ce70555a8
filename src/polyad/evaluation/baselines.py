"""Losses of original models, kept between runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from polyad._folders import cache_folder
from polyad._partial import whole_file
from polyad._stated import parse_stated, read_stated


class _Baseline(TypedDict):
    losses: str
    sha256: str


def read_baseline(key: str, count: int) -> Tensor | None:
    """The losses that are kept under a key; None where there are none, or where they are damaged."""
    store = _store(key)
    try:
        stated: Any = read_stated(store, list[float] | _Baseline)
        if isinstance(stated, dict):
            if _hash(stated["losses"]) != stated["sha256"]:
                return None
            stated = parse_stated(stated["losses"], list[float], store)
        return torch.tensor(stated, dtype=torch.float64) if len(stated) == count else None
    except ValueError:
        return None


def write_baseline(key: str, losses: Tensor) -> None:
    """Keep losses; a cache that is full or cannot be written in costs time alone."""
    store, text = _store(key), json.dumps(losses.tolist())
    with contextlib.suppress(OSError):
        store.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(store) as partial:
            partial.write_text(json.dumps({"losses": text, "sha256": _hash(text)}))


def _store(key: str) -> Path:
    return cache_folder() / "baselines" / f"{_hash(key)}.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
