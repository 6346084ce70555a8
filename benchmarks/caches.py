"""What caches of keys and values cost SmolLM2-135M: memory, time and quality, beside what is asked of them.

python -m benchmarks.caches [PATTERN …] [--again] [--list] [--show] [--threads 1]

Each row runs in a process of its own and is stored at once in benchmarks/results/caches.json; one that is there is
not run again unless --again asks for it. Seconds are the process's own, so that a busy machine matters less.
Statistics of calibration are kept in ~/.cache/polyad/benchmarks. All of it takes about an hour of one core.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.stored_rows import arguments, run_rows

from polyad.cache import HeldCache, Kivi, TransformCoding, cache_for, observe, recording_cache, water_filling
from polyad.data import calibration, evaluation
from polyad.evaluation.caches import cache_quality, cache_speed
from polyad.models import load

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "caches.json"
KEPT = Path.home() / ".cache" / "polyad" / "benchmarks"
TEXTS = ("stdlib", "sotu")
OTHER = dict(zip(TEXTS, reversed(TEXTS), strict=True))
CONTEXT, SCORED, WINDOWS, GENERATED, PROMPTS = 4096, 127, 3, 256, 4
SINKS, WINDOW, BLOCK = 4, 32, 16
TIMES = {"6": 0.03, "4.5": 0.015, "3.5": 0.005}
"""How many times smaller, and the increase of perplexity that is asked for."""
M_MMAP_THRESHOLD = -3  # as in malloc.h
Row = dict[str, Any]


def model(layers: int | None = None) -> Any:
    """SmolLM2-135M in float32, or its first layers."""
    made = load("smollm2", dtype=torch.float32)
    if layers is not None:
        made.model.layers = made.model.layers[:layers]
        made.config.num_hidden_layers = layers
    return made


def statistics(texts: tuple[str, ...]) -> list[dict[str, torch.Tensor]]:
    """What eight windows of each text say; of several texts the mean."""
    found = []
    for text in texts:
        path = KEPT / f"caches-{text}.pt"
        if not path.exists():
            whole = model()
            windows = calibration(whole, (text,), count=8, length=1024).windows
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(observe(whole, partial(TransformCoding, rate=3.0), windows, sinks=SINKS), path)
        found.append(torch.load(path, weights_only=True))
    return [
        {name: sum(part[name] for part in layer) / len(layer) for name in layer[0]}
        for layer in zip(*found, strict=True)
    ]


def coded(made: Any, times: str, texts: tuple[str, ...] = TEXTS, context: int = CONTEXT) -> Callable[[], HeldCache]:
    """Transform coding so many times smaller than bfloat16, exact tokens (in bfloat16) counted."""
    exact = SINKS + WINDOW + BLOCK
    rate = 16 * (context / float(times) - exact) / (context - exact)
    seen = water_filling(statistics(texts)[: made.config.num_hidden_layers], rate)
    options: Any = {"window": WINDOW, "sinks": SINKS, "dtype": torch.bfloat16, "seen": seen}
    return partial(cache_for, made, partial(TransformCoding, block=BLOCK), **options)


def kivi(made: Any, bits: int) -> Callable[[], HeldCache]:
    return partial(cache_for, made, partial(Kivi, bits=bits), dtype=torch.bfloat16)


def quality(text: str) -> Row:
    """Perplexity after a prompt; calibrated on both texts, and on the other one alone."""
    made = model()
    makes = {"plain": partial(cache_for, made), "kivi 4": kivi(made, 4), "kivi 2": kivi(made, 2)}
    for times in TIMES:
        makes[f"{times}x"] = coded(made, times)
        makes[f"{times}x, the other text's calibration"] = coded(made, times, (OTHER[text],))
    windows = evaluation(made, (text,), count=WINDOWS, length=CONTEXT + SCORED)[text]
    found = cache_quality(made, makes, windows, scored=SCORED, at_once=32, callback=told)
    return {name: vars(quality) for name, quality in found.items()}


def agreement(text: str) -> Row:
    """The share of the exact cache's greedy tokens that others give after the same tokens, over several prompts; the
    number of the first other token of each prompt."""
    made = model()
    makes = {f"kivi {bits}": kivi(made, bits) for bits in (2, 4, 6, 8)} | {f"{t}x": coded(made, t) for t in TIMES}
    found: Row = {name: {"shares": [], "first": []} for name in makes}
    with torch.no_grad():
        for ids in evaluation(made, (text,), count=PROMPTS, length=CONTEXT)[text].split(1):
            exact = recording_cache(made)
            made.base_model(ids[:, :-1], past_key_values=exact, use_cache=True)
            caches = {name: make().adopt(exact) for name, make in makes.items()}
            fed, expected = _greedy(made, exact, ids[:, -1:])
            for name, cache in caches.items():
                found[name]["bytes a token"] = cache.nbytes / CONTEXT
                given = [made(p, past_key_values=cache, use_cache=True).logits.argmax(-1) for p in fed.split(8, 1)]
                same = (torch.cat(given, 1) == expected)[0]
                found[name]["shares"].append(float(same.float().mean()))
                found[name]["first"].append(GENERATED if bool(same.all()) else int((~same).nonzero()[0]))
            told(found)
    return {name: row | {"share": sum(row["shares"]) / PROMPTS} for name, row in found.items()}


def _greedy(made: Any, cache: Any, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that an exact cache is given, and those that it gives."""
    tokens = [token]
    for _ in range(GENERATED):
        tokens.append(made(tokens[-1], past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1))
    return torch.cat(tokens[:-1], 1), torch.cat(tokens[1:], 1)


def memory(name: str, layers: int = 1, batch: int = 8, context: int = 8192) -> Row:
    """Resident memory that 8 sequences of 8,192 random tokens add, in the first layer.

    The allocator is told to take large blocks from the system and give them back, so that what is freed is not seen.
    """
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 18)
    made = model(layers)
    makes: dict[str, Callable[[], Any]] = {
        "transformers": lambda: _dynamic(made), "plain": partial(cache_for, made), "kivi 4": kivi(made, 4),
        "kivi 2": kivi(made, 2), "6x": lambda: coded(made, "6", context=context)(),
    }  # fmt: skip
    ids = torch.randint(0, 49152, (batch, context), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        warm = makes[name]()
        made.base_model(ids[:, :256], past_key_values=warm, use_cache=True)
        made.base_model(ids[:, :1], past_key_values=warm, use_cache=True)
        del warm
        before = resident()
        cache = makes[name]()
        for part in ids.split(256, 1):
            made.base_model(part, past_key_values=cache, use_cache=True)
        made.base_model(ids[:, :1], past_key_values=cache, use_cache=True)
        after = resident()
    held = [t for layer in cache.layers for t in (layer.keys, layer.values)] if name == "transformers" else []
    counted = sum(t.nbytes for t in held) if held else cache.nbytes
    shared = 0 if held else cache.shared_nbytes
    return {"resident": after - before, "nbytes": counted, "shared_nbytes": shared}


def resident() -> int:
    """Bytes of this process's memory, what is free given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def speed(context: int) -> Row:
    """Seconds of a decoded token after random ones."""
    made = model()
    makes = {"plain": partial(cache_for, made), "kivi 4": kivi(made, 4), "kivi 2": kivi(made, 2)}
    makes |= {f"{times}x": coded(made, times, context=context) for times in ("6", "3.5")}
    return cache_speed(made, makes, context=context, alternations=9, clock=time.process_time, callback=told)


def prefill(layers: int = 6, turns: int = 3) -> Row:
    """Seconds of a prompt in one call, in the first layers."""
    made = model(layers)
    makes: dict[str, Callable[[], Any]] = {
        "transformers": lambda: _dynamic(made), "plain": partial(cache_for, made), "kivi 4": kivi(made, 4),
        "6x": coded(made, "6"),
    }  # fmt: skip
    ids = torch.randint(0, 49152, (1, CONTEXT), generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {name: [] for name in makes}
    with torch.no_grad():
        for turn in range(turns + 1):
            for name, make in makes.items():
                started = time.process_time()
                made.base_model(ids, past_key_values=make(), use_cache=True)
                if turn:
                    seconds[name].append(time.process_time() - started)
            told(turn, seconds)
    return {name: sorted(found)[len(found) // 2] for name, found in seconds.items()}


def _dynamic(made: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=made.config)


def told(*what: Any) -> None:
    print(*what, file=sys.stderr, flush=True)


ROWS: dict[str, Callable[[], Row]] = {
    **{f"speed {context}": partial(speed, context) for context in (1024, 4096, 8192)},
    "prefill": prefill,
    **{f"memory {name}": partial(memory, name) for name in ("transformers", "plain", "kivi 4", "kivi 2", "6x")},
    **{f"quality {text}": partial(quality, text) for text in TEXTS},
    **{f"agreement {text}": partial(agreement, text) for text in TEXTS},
}


def asked(rows: dict[str, Row]) -> list[Row]:
    """What is asked of the rows that are there, and whether it is met."""
    bars: list[Row] = []

    def bar(what: str, value: float, most: float) -> None:
        bars.append({"what": what, "value": value, "at most": most, "met": value <= most})

    for context, theirs, ours in ((4096, 0.8, 1.1), (8192, 0.6, 1.0)):
        times = rows.get(f"speed {context}", {})
        for name in times.keys() - {"transformers", "plain"}:
            bar(f"decoding at {context}, {name} / transformers", times[name] / times["transformers"], theirs)
            bar(f"decoding at {context}, {name} / plain", times[name] / times["plain"], ours)
    times = rows.get("prefill", {})
    for name in times.keys() - {"transformers"}:
        bar(f"prefill, {name} / transformers", times[name] / times["transformers"], 1.15)
    plain = rows.get("memory transformers")
    for name in ("kivi 4", "kivi 2", "6x"):
        mine = rows.get(f"memory {name}")
        if plain and mine:
            fall, said = plain["resident"] - mine["resident"], plain["nbytes"] - mine["nbytes"]
            bar(f"memory, {name}: |fall / what nbytes says - 1|", abs(fall / said - 1), 0.1)
    for text in TEXTS:
        for times_smaller, most in TIMES.items():
            found, name = rows.get(f"quality {text}", {}), f"{times_smaller}x"
            if name in found:
                cross = found[f"{name}, the other text's calibration"]
                bar(f"increase on {text}, {name}", found[name]["ratio"] - 1, most)
                bar(f"increase on {text}, {name}, the other text's calibration", cross["ratio"] - 1, 2 * most)
                size = 1 / found[name]["ratio_of_bytes"]
                bar(f"share of bytes on {text}, {name}", size, 1 / float(times_smaller))
        shares = rows.get(f"agreement {text}", {})
        for name, twice in (("6x", "kivi 4"), ("4.5x", "kivi 6"), ("3.5x", "kivi 8")):
            if shares:
                gap = shares[twice]["share"] - shares[name]["share"]
                bar(f"greedy tokens on {text}, those of {twice} less those of {name}", gap, 0.0)
    return bars


def breakeven(rows: dict[str, Row]) -> dict[str, str]:
    """From which context each decodes as fast as transformers' own cache, lines through what was measured."""
    seconds = {context: rows[f"speed {context}"] for context in (1024, 4096, 8192) if f"speed {context}" in rows}
    found = {}
    for name in next(iter(seconds.values()), {}).keys() - {"transformers"}:
        ahead = [
            (context, times[name] - times["transformers"]) for context, times in seconds.items() if name in times
        ]
        (first, gap), (last, _) = ahead[0], ahead[-1]
        found[name] = f"already at {first:,} tokens" if gap <= 0 else f"not up to {last:,} tokens"
        for (c, before), (d, after) in itertools.pairwise(ahead):
            if before > 0 >= after:
                found[name] = f"about {c + (d - c) * before / (before - after):,.0f} tokens"
    return found


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    done = run_rows(
        given, ROWS, "benchmarks.caches", RESULTS, lambda _name: given.threads,
        lambda rows: {"asked": asked(rows), "break-even": breakeven(rows)},
    )  # fmt: skip
    if done is None:
        return
    chosen, kept = done
    for name in chosen:
        print(f"{name}: {json.dumps(kept['rows'].get(name), indent=None)}")
    for one in asked(kept["rows"]):
        print(
            f"{'met   ' if one['met'] else 'MISSED'} {one['what']} {one['value']:.4g}, at most {one['at most']:.4g}"
        )
    print(json.dumps(breakeven(kept["rows"])))


if __name__ == "__main__":
    main()
