"""What every row of the benchmarks is made of: calls timed in turns, the medians' ratios, and what is asked of them.

A timer is a function that makes one measurement and gives its seconds. The timers of a row take turns, so that a busy
machine slows all of them alike; every sample is kept.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

Timer = Callable[[], float]
Row = dict[str, Any]  # "samples", "facts", "asked", "absent" and whatever else is worth keeping

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


def clock(call: Callable[[], Any], keep: dict[str, Any] | None = None, name: str = "") -> Timer:
    """A timer of one call; what the call gave is left under ``name`` in ``keep``."""

    def timer() -> float:
        started = time.perf_counter()
        given = call()
        taken = time.perf_counter() - started
        if keep is not None:
            keep[name] = given
        return taken

    return timer


def per_sweep(run: Callable[[int], Any], few: int = 1, more: int = 5) -> Timer:
    """A timer of one sweep of ``run(count)``, its preparation excluded."""
    return lambda: (clock(lambda: run(more))() - clock(lambda: run(few))()) / (more - few)


def take(timers: dict[str, Timer], turns: int = 9, budget: float = 60.0, least: int = 3) -> dict[str, list[float]]:
    """Samples of each timer in turns, after one turn that does not count; fewer than ``turns`` if time is up."""
    samples: dict[str, list[float]] = {name: [] for name in timers}
    started = time.perf_counter()
    for turn in range(turns + 1):
        for name, timer in timers.items():
            torch.set_num_threads(THREADS)  # some peers change it
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                seconds = timer()
            if turn or time.perf_counter() - started > budget:  # so slow that warming up does not matter
                samples[name].append(seconds)
        if time.perf_counter() - started > budget and min(map(len, samples.values())) >= least:
            break
    return samples


def median(samples: list[float]) -> float:
    return statistics.median(samples)


def spread(samples: list[float]) -> float:
    """The interquartile range."""
    if len(samples) < 2:
        return 0.0
    first, _, third = statistics.quantiles(samples, n=4, method="inclusive")
    return third - first


def faster(samples: dict[str, list[float]], bars: dict[str, float], ours: str = "ours") -> list[Row]:
    """How many times our median goes into those of others, and how often it should; absent ones are left out."""
    return [
        at_least(f"{name} / {ours}", median(samples[name]) / median(samples[ours]), bar)
        for name, bar in bars.items()
        if name in samples
    ]


def within(samples: dict[str, list[float]], name: str, bar: float) -> Row:
    """Our median as a multiple of a floor's or a peer's, and how much it may be."""
    return at_most(f"ours / {name}", median(samples["ours"]) / median(samples[name]), bar)


def at_least(what: str, value: float, bar: float) -> Row:
    return {"what": what, "value": value, "asked": f"at least {bar:g}", "met": bool(value >= bar)}


def at_most(what: str, value: float, bar: float) -> Row:
    return {"what": what, "value": value, "asked": f"at most {bar:g}", "met": bool(value <= bar)}


def peer(name: str, row: Row) -> Any:
    """A package, or None, and then a sentence in the row."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as reason:
        row.setdefault("absent", []).append(f"{name} was not measured ({reason}); `make peers` installs it.")
        return None


def exponent(sizes: tuple[int, ...], samples: dict[str, list[float]], who: str = "ours") -> float:
    """The slope of the least squares line through the logarithms of sizes and medians."""
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(median(samples[f"{who} {size}"])) for size in sizes]
    ).slope


def growth(
    sizes: tuple[int, ...],
    make: Callable[[int], dict[str, Timer]],
    theory: float,
    *,
    turns: int = 7,
    budget: float = 40,
) -> Row:
    """Exponents of everyone's time in a size; ``make(size)`` gives their timers, the ones of "floor" among them.

    The floor's own exponent says what the processor makes of the theory: small products run below its speed.
    """
    timers = {f"{name} {size}": timer for size in sizes for name, timer in make(size).items()}
    samples = take(timers, turns=turns, budget=budget)
    names = dict.fromkeys(name.rsplit(" ", 1)[0] for name in timers)
    found = {name: exponent(sizes, samples, name) for name in names}
    last = {name: _last(sizes, samples, name) for name in names}
    return {
        "samples": samples,
        "facts": {"exponents": found, "of the last step": last, "theory": theory},
        "asked": [],
    }


def _last(sizes: tuple[int, ...], samples: dict[str, list[float]], name: str) -> float:
    few, many = (median(samples[f"{name} {size}"]) for size in sizes[-2:])
    return math.log(many / few) / math.log(sizes[-1] / sizes[-2])
