"""Parquet files, read by pyarrow."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__all__ = ["read_parquet"]


def read_parquet(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a parquet file, each a mapping of column to value.

    Raises ImportError with what to install where pyarrow is missing, ValueError where the file is no parquet.
    """
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ImportError(
            f"{path} needs pyarrow to be read; install it with pip install 'polyad[data]', or save it as .jsonl"
        ) from None
    try:
        return parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no whole parquet file ({error}); fetch or save it again") from None
