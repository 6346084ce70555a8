"""How large an adapter must be to train a given count of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from polyad.adapters.adapter import Adapter, Bank, generator
from polyad.adapters.host.build import Method, arguments_of, opened, picked
from polyad.adapters.host.sites import Site, chosen
from polyad.models.surgery import Which

FINE = 48
"""How many sizes are tried between two neighbours of the coarse ones."""


def trained(model: nn.Module, which: Which, method: Method, **arguments: Any) -> int:
    """How many numbers the method would train on these layers: one adapter of each shape is made, none attached.

    >>> from polyad.adapters import LoRA
    >>> trained(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8)), "*", LoRA, rank=2)
    60
    """
    return _count(chosen(model, which, ("linear", "conv", "experts"), {}, tied=False), *opened(method, arguments))


def sized(model: nn.Module, which: Which, method: Method, count: int, **arguments: Any) -> tuple[partial[Any], int]:
    """The method of the size at which it trains nearest to ``count`` numbers on these layers, and how many.

    The argument that ``Adapter.sized_by`` names is searched from 1 to the longest side of the layers: a coarse
    ladder, then all sizes, or 48 of them, beside its best rung. Sizes that the method refuses are passed over. A
    method without that argument, or with it given, stays as it is.

    >>> from polyad.adapters import DoRA, LoKr
    >>> model = nn.Sequential(nn.Linear(64, 64))
    >>> sized(model, "*", DoRA, 512)[1], sized(model, "*", LoKr, 80)[0].keywords
    (448, {'factor': 8})
    """
    method, given = opened(method, arguments)
    sites = chosen(model, which, ("linear", "conv", "experts"), {}, tied=False)
    size = getattr(method, "sized_by", Adapter.sized_by)
    if size in given or size not in arguments_of(method):
        return partial(method, **given), _count(sites, method, given)
    refused: list[Exception] = []

    def off(value: int) -> float:
        try:
            return abs(_count(sites, method, {**given, size: value}) - count)
        except (ValueError, TypeError) as error:
            refused.append(error)
            return float("inf")

    best = _nearest(off, max(max(site.shape) for site in sites))
    if off(best) == float("inf"):
        raise ValueError(f"no {size} of {method.__name__} fits these layers: {refused[0]}") from refused[0]
    return partial(method, **given, **{size: best}), _count(sites, method, {**given, size: best})


def _nearest(off: Callable[[int], float], most: int) -> int:
    """The size that is least off, the smallest of equals."""
    rungs = sorted({r for k in range(most.bit_length()) for r in (2**k, 3 * 2**k // 2) if 1 <= r <= most} | {most})
    tried = {r: off(r) for r in rungs}
    while True:
        best = min(tried, key=lambda r: (tried[r], r))
        known = sorted(tried)
        i = known.index(best)
        low, high = known[max(i - 1, 0)], known[min(i + 1, len(known) - 1)]
        between = [r for r in range(low, high + 1) if r not in tried]
        if not between:
            return best
        tried |= {r: off(r) for r in between[:: -(-len(between) // FINE)]}


def _count(sites: list[Site], method: Method, arguments: Mapping[str, Any]) -> int:
    takes, bank, total = arguments_of(method), Bank(), 0
    kinds = Counter(
        (site.shape, _experts(site), tuple((k, picked(k, v, site)) for k, v in arguments.items())) for site in sites
    )
    for (shape, experts, values), often in kinds.items():
        given = {**dict(values), **({"bank": bank} if "bank" in takes else {})}
        if "generator" in takes:
            given["generator"] = generator(0, str(shape))
        made = method(shape, **{k: v for k, v in given.items() if k != "dropout"})
        total += often * experts * sum(p.numel() for p in made.parameters() if p.requires_grad)
    return total + sum(p.numel() for p in bank.parameters())


def _experts(site: Site) -> int:
    weight = site.layer._parameters.get(site.parameter or "weight")
    return 1 if site.parameter is None or weight is None else len(weight)
