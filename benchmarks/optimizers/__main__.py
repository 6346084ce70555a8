"""Optimisers on a small decoder: state held, time of a step over its floor, held-out loss at equal steps.

python -m benchmarks.optimizers [PATTERN …] [--again] [--list] [--show]

Each row runs in a process of its own and is stored at once in benchmarks/results/optimizers.json; one that is there
is not run again unless --again asks for it. A row of losses is an optimiser at one rate and seed: give
`loss, *, seed 0` at all rates first; `seed 1` and `seed 2` take the best of these.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.optimizers.decoder import batch, decoder, heldout_loss, tokens
from benchmarks.stored_rows import arguments, run_rows

from polyad import optim
from polyad.optim import Optimizer

RESULTS = Path(__file__).parents[1] / "results" / "optimizers.json"
RANK, STEPS, SEEDS = 96, 500, 3
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
Make = Callable[[Any, int, float], torch.optim.Optimizer]
"""An optimiser of a model, at a rank and a learning rate."""


def _hosted(transform: Callable[[int], Any]) -> Make:
    return lambda model, rank, lr: Optimizer(_groups(model), transform(rank), lr=lr)


def _groups(model: Any) -> list[dict[str, Any]]:
    """The layers' parameters, and the embedding and the norms, which have Adam whatever the others have."""
    named = list(model.named_parameters())
    inner = [p for name, p in named if "layers" in name and p.ndim > 1]
    return [
        {"params": inner},
        {"params": [p for _, p in named if all(p is not q for q in inner)], "transform": optim.Adam()},
    ]


def _torchs(name: str, **options: Any) -> Make:
    return lambda model, _rank, lr: getattr(torch.optim, name)(model.parameters(), lr=lr, weight_decay=0.0, **options)


MAKERS: dict[str, Make] = {
    "AdamW": _torchs("AdamW", fused=True),
    "Adafactor (torch)": _torchs("Adafactor"),
    "adam": _hosted(lambda _: optim.Adam()),
    "adam_8bit": _hosted(lambda _: optim.adam_8bit()),
    "galore": _hosted(lambda rank: optim.galore(rank, scale=1.0)),
    "projected_adam": _hosted(lambda rank: optim.ProjectedAdam(rank, interval=50, scale=1.0)),
    "projected_adam, 8 bits": _hosted(
        lambda rank: optim.StoredMoments(optim.Projected(optim.Adam(), optim.PowerIteration(rank), 50))
    ),
    "coap": _hosted(lambda rank: optim.coap(rank, scale=1.0)),
    "dct_adaptive": _hosted(lambda rank: optim.dct_adaptive(rank, scale=1.0)),
    "flora": _hosted(lambda rank: optim.flora(rank, scale=1.0)),
    "online_subspace_descent": _hosted(lambda rank: optim.online_subspace_descent(rank, scale=1.0)),
    "smmf": _hosted(lambda _: optim.SMMF()),
    "muon": _hosted(lambda _: optim.Muon()),
    "lamb": _hosted(lambda _: optim.LAMB()),
}


def state(name: str) -> dict[str, Any]:
    """Bytes of state a parameter of the layers of the 10 M decoder, counted in the tensors that are held."""
    model = decoder("10M")
    optimizer = MAKERS[name](model, RANK, 1e-3)
    ids = batch(tokens()[0], 0, 0)
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    inner = [p for key, p in model.named_parameters() if "layers" in key and p.ndim > 1]
    held = sum(optim.state_bytes(optimizer.state[p]) for p in inner)
    return {"bytes a parameter": held / sum(p.numel() for p in inner)}


def step(name: str) -> dict[str, Any]:
    """Milliseconds of a step of the layers' matrices, with and without a refresh, and its floor: the products of the
    projection at this machine's rate and torch's fused AdamW on the moments that are kept."""
    inner = [p for key, p in decoder("10M").named_parameters() if "layers" in key and p.ndim > 1]
    grads = [torch.randn_like(p) * 1e-3 for p in inner]
    model = torch.nn.ParameterList(inner)
    optimizer = MAKERS[name](_Named(model), RANK, 1e-3)
    seconds = []
    for _ in range(26):
        for p, g in zip(inner, grads, strict=True):
            p.grad = g
        clock = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - clock)
    return {
        "milliseconds": 1e3 * statistics.median(seconds[3:]), "first": 1e3 * seconds[0],
        "floor": 1e3 * _floor(inner, projected="rank" in name or name in PROJECTED),
    }  # fmt: skip


PROJECTED = frozenset(n for n in MAKERS if n.startswith(("galore", "projected", "coap", "dct", "flora", "online")))


class _Named(torch.nn.Module):
    """Parameters under names that count as those of layers."""

    def __init__(self, layers: torch.nn.ParameterList) -> None:
        super().__init__()
        self.layers = layers


def _floor(params: list[Any], *, projected: bool) -> float:
    shapes = [(min(p.shape), max(p.shape)) for p in params]
    lows = [torch.randn(RANK, m) if projected else torch.randn(n, m) for n, m in shapes]
    parts = [(torch.randn(n, RANK), torch.randn(n, m)) for n, m in shapes]
    fused = torch.optim.AdamW([torch.nn.Parameter(low) for low in lows], fused=True)
    for group in fused.param_groups:
        for p in group["params"]:
            p.grad = torch.randn_like(p)
    seconds = []
    for _ in range(12):
        clock = time.perf_counter()
        fused.step()
        if projected:
            for (basis, g), low in zip(parts, lows, strict=True):
                torch.mm(basis.mT, g)
                g.addmm_(basis, low, alpha=1e-6)
        seconds.append(time.perf_counter() - clock)
    return statistics.median(seconds[2:])


def loss(name: str, rate: float | None, seed: int) -> dict[str, Any]:
    """The held-out loss after 500 steps of 8 x 128 tokens of the 2.5 M decoder, rank 48, with warm-up and decay."""
    rate = rate if rate is not None else best_rate(name)
    train, heldout = tokens()
    model = decoder("2.5M", seed)
    optimizer = MAKERS[name](model, RANK // 2, rate)
    curve = []
    clock = time.perf_counter()
    for i in range(STEPS):
        share = min(1.0, (i + 1) / 50) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / STEPS)))
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        ids = batch(train, seed, i)
        value = model(ids, labels=ids).loss
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        curve.append(float(value.detach()))
        if not math.isfinite(curve[-1]):
            return {"rate": rate, "held out": math.inf, "curve": curve[::25]}
    seconds = time.perf_counter() - clock
    held = sum(optim.state_bytes(s) for s in optimizer.state.values())
    return {
        "rate": rate, "held out": heldout_loss(model, heldout), "curve": curve[::25], "seconds": seconds,
        "state": held / sum(p.numel() for p in model.parameters()),
    }  # fmt: skip


def best_rate(name: str) -> float:
    """The rate with the least held-out loss at seed 0."""
    rows = json.loads(RESULTS.read_text())["rows"]
    tried = {rate: rows[key]["held out"] for rate in RATES if (key := f"loss, {name}, {rate:g}, seed 0") in rows}
    if len(tried) < len(RATES):
        raise SystemExit(f"loss of {name} at seed 0 is stored at {len(tried)} of {len(RATES)} rates; run these first")
    return min(tried, key=lambda rate: tried[rate])


ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"state, {name}": functools.partial(state, name) for name in MAKERS},
    **{f"step, {name}": functools.partial(step, name) for name in MAKERS},
    **{f"loss, {n}, {rate:g}, seed 0": functools.partial(loss, n, rate, 0) for rate in RATES for n in MAKERS},
    **{f"loss, {n}, best, seed {s}": functools.partial(loss, n, None, s) for s in range(1, SEEDS) for n in MAKERS},
}


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    done = run_rows(given, ROWS, "benchmarks.optimizers", RESULTS, lambda _name: 1)
    if done is None:
        return
    chosen, kept = done
    for name in chosen:
        row = kept["rows"].get(name, {})
        print(name, {key: value for key, value in row.items() if isinstance(value, float)})


if __name__ == "__main__":
    main()
