"""Up to how many rows a packed product is the faster one: measured once on a processor, and remembered."""

from __future__ import annotations

import copy
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad._folders import cache_folder
from polyad._partial import whole_file
from polyad._stated import read_stated
from polyad._versions import NEWEST, read_version
from polyad.formats import Quantized
from polyad.layers.kernels.pack import last_rows, pack_codes
from polyad.layers.kernels.process_memory import return_memory
from polyad.layers.kernels.runs import MOST_INEXACT

SECONDS = 2.0
"""What all measurements of a process may take; matrices beyond that are judged by the one nearest to them in size."""
ROWS = (1, 4, 16, 64)
NUMBERS = 1 << 21
"""A matrix of more numbers is judged by its last rows."""
CACHE = 48 << 20
"""Bytes over which copies are spread, so that a matrix is read from memory and not from the processor's cache."""
UNMEASURED = 8
"""Rows up to which the packed product serves where nothing of its kind was measured."""


class Choice(TypedDict):
    """Measurements of a matrix: up to how many rows the packed product is faster, and microseconds of one row."""

    most: int
    packed: float
    restored: float
    dense: float


class StatedChoices(TypedDict):
    """The file in which choices are kept, by processor and then by matrix."""

    version: int
    processors: dict[str, dict[str, Choice]]


class Choices:
    """The choices of a processor, from the user's cache folder and from measurements of this process."""

    def __init__(self) -> None:
        self.place, self.spent, self.changed = "", 0.0, False
        self.known: dict[str, Choice] = {}

    def of(self, source: Quantized, kernel: str, dtype: torch.dtype, *, measure: bool = True) -> Choice:
        """The choice for a matrix of codes; ``source`` needs codes only where it is to be measured."""
        if self.place != machine():
            self.place, self.known = machine(), read_choices().get(machine(), {})
        key = name_of(source, kernel, dtype)
        if key not in self.known:
            near = self._nearest(key)
            if not measure or self.spent > SECONDS:
                return near or Choice(most=UNMEASURED, packed=0.0, restored=0.0, dense=0.0)
            began = time.process_time()
            self.known[key], self.changed = measure_choice(source, kernel, dtype), True
            self.spent += time.process_time() - began
        return self.known[key]

    def _nearest(self, key: str) -> Choice | None:
        family, numbers = _family(key)
        sizes = {other: _family(other)[1] for other in self.known if _family(other)[0] == family}
        return self.known[min(sizes, key=lambda other: abs(sizes[other] - numbers))] if sizes else None

    def write(self) -> None:
        """Put what was measured into the user's cache folder; one that cannot be written in changes nothing."""
        if not self.changed:
            return
        kept = read_choices()
        self.known = {**kept.get(self.place, {}), **self.known}  # what other processes measured meanwhile
        stated = StatedChoices(version=NEWEST["kernels"], processors={**kept, self.place: self.known})
        try:
            file().parent.mkdir(parents=True, exist_ok=True)
            with whole_file(file()) as partial:
                partial.write_text(json.dumps(stated, indent=1), encoding="utf-8")
        except OSError:
            pass
        self.changed = False
        return_memory()


CHOICES = Choices()


def file() -> Path:
    """The file in which choices are kept."""
    return cache_folder() / "kernels.json"


def read_choices() -> dict[str, dict[str, Choice]]:
    """The choices that are kept, by processor; nothing where the file is missing, damaged or of a newer polyad."""
    try:
        stated = read_stated(file(), StatedChoices)
        read_version("kernels", file(), stated["version"])
    except ValueError:
        return {}
    sound = all(_is_sound(c) for choices in stated["processors"].values() for c in choices.values())
    return stated["processors"] if sound else {}


def _is_sound(choice: Choice) -> bool:
    return 0 <= choice["most"] <= 2 * ROWS[-1] and min(choice["packed"], choice["restored"], choice["dense"]) > 0


def machine() -> str:
    """The processor, how torch uses it, and which torch: what a measurement holds for."""
    return f"{_processor()}, {_instructions()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _instructions() -> str:
    return torch.backends.cpu.get_cpu_capability()


def name_of(source: Quantized, kernel: str, dtype: torch.dtype) -> str:
    """The words by which the choice for a matrix is kept."""
    wide = "rows" if source.block[1] >= source.size[1] else f"groups of {source.block[1]}"
    shape = f"{source.size[0]} x {source.size[1]}"
    return f"{kernel}, {source.bits} bits, {wide}, {str(dtype).removeprefix('torch.')}, {shape}"


def _family(key: str) -> tuple[str, int]:
    family, _, shape = key.rpartition(", ")
    try:
        rows, columns = (int(number) for number in shape.split(" x "))
    except ValueError:
        return key, 0
    return family, rows * columns


@torch.no_grad()
def measure_choice(source: Quantized, kernel: str, dtype: torch.dtype) -> Choice:
    """Time a matrix's packed product, the one with its numbers restored, and the dense one."""
    some = last_rows(source, max(64, NUMBERS // source.size[1]))
    format: Any = pack_codes(some, kernel)
    share = source.size[0] / some.size[0]
    dense = some.dequantize(dtype)
    copies = max(1, min(64, CACHE // dense.nbytes))
    one = torch.ones(1, source.size[1], dtype=dtype)
    rival = call_microseconds([lambda w=w: F.linear(one, w) for w in dense.repeat(copies, 1).chunk(copies)])
    apart = [copy.deepcopy(format) for _ in range(copies)]
    alone = call_microseconds([lambda f=f: _few(f, one) for f in apart])
    slow = call_microseconds([lambda: _many(format, one)], 5)
    most, lead = 0, 0.0
    for rows in ROWS if dtype == torch.bfloat16 else [r for r in ROWS if r <= MOST_INEXACT]:
        x = torch.ones(rows, source.size[1], dtype=dtype)
        gain = call_microseconds([lambda x=x: _many(format, x)], 5) - call_microseconds(
            [lambda x=x: _few(format, x)], 15
        )
        if gain <= 0:  # they cross between the rows before and these
            most += int((rows - most) * lead / (lead - gain)) if most else 0
            break
        most, lead = rows, gain
    return Choice(most=most, packed=alone * share, restored=slow * share, dense=rival * share)


def _few(format: Any, x: Tensor) -> Tensor:
    return format.few(x.bfloat16()).to(x.dtype)


def _many(format: Any, x: Tensor) -> Tensor:
    return format.many(x.float()).half() if x.dtype == torch.float16 else format.many(x)


def call_microseconds(calls: list[Callable[[], object]], turns: int = 4) -> float:
    """Microseconds of a call, at the lower fifth of some turns of all of them.

    Each call is timed by itself: where other programs want the processor, most calls of two threads wait for one
    another many times as long as they work, and a sum over calls would judge the waiting.
    """
    # the processor's own time where there is one thread: others may want the processor too
    clock = time.thread_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns
    samples: list[int] = []
    for _ in range(turns):
        for call in calls:
            began = clock()
            call()
            samples.append(clock() - began)
    return sorted(samples)[len(samples) // 5] / 1e3
