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


def assert_same(result: Any, expected: Any, what: str) -> None:
    """Equal keys, types, dtypes and numbers, in whatever is nested."""
    if isinstance(expected, dict):
        other = sorted(map(str, result.keys() ^ expected.keys()))
        assert not other, f"{what} differs in its entries: {', '.join(other[:3])}"
        for key, value in expected.items():
            assert_same(result[key], value, f"{what} at {key}")
    elif isinstance(expected, tuple | list):
        assert len(result) == len(expected), f"{what} has {len(result)} parts, not {len(expected)}"
        for i, value in enumerate(expected):
            assert_same(result[i], value, f"{what} at {i}")
    elif isinstance(expected, Tensor):
        assert result.dtype == expected.dtype, f"{what} is of {result.dtype}, not {expected.dtype}"
        same = result.shape == expected.shape and bool(
            ((result == expected) | (result.isnan() & expected.isnan())).all()
        )
        assert same, f"{what} has other numbers"
    else:
        assert type(result) is type(expected), f"{what} is a {type(result).__name__}, not a {type(expected).__name__}"
        assert result == expected, f"{what} is {result}, not {expected}"
