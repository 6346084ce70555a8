"""The folders of polyad's cache and of downloaded data."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """The folder of downloaded data: ``$POLYAD_DATA``, or ``data`` in polyad's cache folder."""
    return Path(os.environ.get("POLYAD_DATA", cache_folder() / "data"))


def cache_folder() -> Path:
    """Polyad's cache: ``$POLYAD_CACHE``, or ``polyad`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(os.environ.get("POLYAD_CACHE", Path(home) / "polyad"))
