"""The memory that statistics will hold, known before they are collected."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyad.models.calibration.statistic import STATISTICS
from polyad.models.layer_matrices import matrix_shape, multiplies


def refuse_too_large(
    model: nn.Module, asked: Mapping[str, Iterable[str]], solves: Mapping[str, int] | None = None
) -> None:
    """Refuse statistics that the memory does not hold, with the figure and the layer that takes most.

    Of layers of one width in one module only one counts, since they may get one input and share what is known of it.
    ``solves`` are the bytes that each solve takes that follows, by its name: the largest is counted too.
    """
    sizes = _statistics(model, asked)
    statistics, solve = sum(size for size, _ in sizes), max((solves or {}).values(), default=0)
    first = next(model.parameters(), None)
    free = None if first is None else available_bytes(first.device)
    if free is None or statistics + solve <= free:
        return
    remedy = "leave wide layers out of the selection, or use a method that reads no inputs, such as svd"
    if statistics > free:
        most, path = max(sizes)
        raise ValueError(
            f"the statistics of these layers take {statistics / 1e9:.3g} GB and {free / 1e9:.3g} GB are free, most "
            f"of it those of {path} ({most / 1e9:.3g} GB); {remedy}"
        )
    name = max(solves or {}, key=(solves or {}).__getitem__)
    beside = f" beside statistics of {statistics / 1e9:.3g} GB" if statistics else ""
    raise ValueError(
        f"solving {name} takes up to {solve / 1e9:.3g} GB{beside}, and {free / 1e9:.3g} GB are free; leave it out of "
        "the selection, or take a method that works on the shorter side or reads no inputs, such as lord or svd"
    )


def _statistics(model: nn.Module, asked: Mapping[str, Iterable[str]]) -> list[tuple[int, str]]:
    """The bytes of each statistic, with the path of a layer that it is of."""
    sizes: dict[tuple[str, int, str], tuple[int, str]] = {}
    for path, names in asked.items():
        layer: Any = model.get_submodule(path)
        if not multiplies(layer):
            continue
        out, inner = matrix_shape(layer)
        width = max(4, layer.weight.dtype.itemsize)
        for name in names:
            kind = STATISTICS[name]
            size = width * kind.numbers(inner if kind.reads == "input" else out)
            sizes[path.rpartition(".")[0], inner, name] = (size, path)
    return list(sizes.values())


def available_bytes(device: torch.device) -> int | None:
    """Bytes of memory that a new tensor on a device may take; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        stated = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return min(int(stated["MemAvailable"].split()[0]) * 1024, *_group_limits())
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _group_limits() -> list[int]:
    """The bytes that a container leaves to its processes, if this is one; files kept in memory are not counted."""
    group = Path("/sys/fs/cgroup")
    try:
        stated = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return [int((group / "memory.max").read_text()) - int(stated["anon"])]
    except (OSError, ValueError, KeyError):  # no container, or one without a limit
        return [2**62]
