"""Finished statistics on disk, so that a run that was killed can go on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from polyad._callback import Callback
from polyad._sealed import read_sealed, write_sealed
from polyad._stated import parse_stated, read_stated
from polyad.data.calibration import Calibration
from polyad.models.calibration import collect, join_statistics
from polyad.statistics import Moments

SEPARATOR, INDEX = "|", "polyad.index"
_Index = dict[str, tuple[int, dict[str, str]]]
"""For each module the count of its rows and the tensor of each of its statistics."""


class StatisticsStore:
    """A folder of statistics by part of the calibration data.

    ``identity`` says what they hold for: the model's files and the steps before them; ``configuration`` is the
    sha256 of the model's configuration. Parts of another identity, other needs or other text are not read; a damaged
    one, or one of a newer polyad, is made again.
    """

    def __init__(self, folder: Path, identity: Any, configuration: str = "") -> None:
        self.folder, self.identity, self.configuration = folder, identity, configuration

    def recall(self, part: int, asked: Mapping[str, set[str]], text: Calibration) -> dict[str, Moments] | None:
        """The statistics of one part, or None where they are not there."""
        try:
            return _read(self._path(part, asked, text, [self.configuration]))
        except ValueError:
            pass
        try:  # polyad 0.1.0 knew no configuration and wrote no checksum
            path = self._path(part, asked, text, [])
            return _read(path, read_stated(path.with_suffix(".json"), _Index))
        except ValueError:
            return None

    def keep(self, part: int, asked: Mapping[str, set[str]], text: Calibration, stats: Mapping[str, Moments]) -> None:
        """Write one part's statistics, shared tensors once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        names: dict[int, str] = {}
        index: dict[str, Any] = {}
        for module, moments in stats.items():
            keys: dict[str, str] = {}
            for field, value in moments.values.items():
                key = names.setdefault(id(value), f"{module}{SEPARATOR}{field}")
                tensors[key] = value
                keys[field] = key
            index[module] = [moments.count, keys]
        path = self._path(part, asked, text, [self.configuration])
        write_sealed(path, tensors, "statistics", {INDEX: json.dumps(index)})

    def forget(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, part: int, asked: Mapping[str, set[str]], text: Calibration, configuration: list[str]) -> Path:
        wanted = {path: sorted(needs) for path, needs in asked.items()}
        key = json.dumps([self.identity, *configuration, wanted, dict(text.digests)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}-{part}.safetensors"


def _read(path: Path, index: _Index | None = None) -> dict[str, Moments]:
    """The statistics in a file; ValueError where it is damaged."""
    tensors, metadata = read_sealed(path, "statistics", AGAIN)
    stated: _Index = parse_stated(metadata.get(INDEX), _Index, path, AGAIN) if index is None else index
    try:
        return {
            name: Moments(count, **{field: tensors[key] for field, key in keys.items()})
            for name, (count, keys) in stated.items()
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} lacks what it states ({error}); {AGAIN}") from None


AGAIN = "it is made again"


def configuration_of(model: Any) -> str:
    """The sha256 of what a model's configuration states, but for the path that it was loaded from."""
    stated = model.config.to_dict() if hasattr(model, "config") else {}
    stated.pop("_name_or_path", None)
    return hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest()


PART = 16
"""Windows after which statistics are kept, where there is a store: what a kill can cost."""


def gather_statistics(
    model: Any,
    needs: Mapping[str, set[str]],
    text: Calibration | None,
    store: StatisticsStore | None,
    report: Callback,
) -> dict[str, Moments]:
    """The statistics of a calibration text, part by part; those that a store has are not collected again."""
    if not needs:
        return {}
    if text is None:
        raise ValueError("this recipe reads activations; give calibrate='stdlib', 'sotu' or a text file")
    stats: dict[str, Moments] = {}
    for number, windows in enumerate(text.windows.split(PART)):
        part = store.recall(number, needs, text) if store is not None else None
        if part is None:
            done = partial(_advance, report, number * PART, len(text.windows))
            part = collect(model, needs, [window[None] for window in windows], callback=done)
            if store is not None:
                store.keep(number, needs, text, part)
        stats = join_statistics(stats, part) if stats else part
    return stats


def _advance(report: Callback, before: int, total: int, step: int, _of: int, values: Any) -> None:
    report(before + step, total, values)
