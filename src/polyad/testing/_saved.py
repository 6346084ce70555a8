"""States saved and read back, and held against what they were."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor


def read_back(saved: dict[str, Any]) -> dict[str, Any]:
    """A state dict that went through a file and was read in the safe way."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(found: Any, expected: Any, what: str) -> None:
    """Equal keys, types, dtypes and numbers, in whatever is nested."""
    if isinstance(expected, dict):
        other = sorted(map(str, found.keys() ^ expected.keys()))
        assert not other, f"{what} differs in its entries: {', '.join(other[:3])}"
        for key, value in expected.items():
            assert_same(found[key], value, f"{what} at {key}")
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected), f"{what} has {len(found)} parts, not {len(expected)}"
        for i, value in enumerate(expected):
            assert_same(found[i], value, f"{what} at {i}")
    elif isinstance(expected, Tensor):
        assert found.dtype == expected.dtype, f"{what} is of {found.dtype}, not {expected.dtype}"
        same = found.shape == expected.shape and bool(
            ((found == expected) | (found.isnan() & expected.isnan())).all()
        )
        assert same, f"{what} has other numbers"
    else:
        assert type(found) is type(expected), f"{what} is a {type(found).__name__}, not a {type(expected).__name__}"
        assert found == expected, f"{what} is {found}, not {expected}"
