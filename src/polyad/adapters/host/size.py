"""The size at which an adapter trains a given count of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from polyad.adapters.adapter import Adapter, Bank, generator
from polyad.adapters.host.build import Method, arguments_of, unwrap_method, value_for
from polyad.adapters.host.select import select_sites
from polyad.adapters.host.sites import Site
from polyad.models.surgery import Which

FINE = 48
"""The number of sizes tried between two neighbours of the coarse ones."""


def trained_count(model: nn.Module, which: Which, method: Method | str, **arguments: Any) -> int:
    """The count of numbers that the method would train on these layers; one adapter of each shape is made for it.

    >>> from polyad.adapters import LoRA
    >>> trained_count(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8)), "*", LoRA, rank=2)
    60
    """
    sites = select_sites(model, which, ("linear", "conv", "experts"), {}, tied=False).sites
    return _count(sites, *unwrap_method(method, arguments))


def size_to_count(
    model: nn.Module, which: Which, method: Method | str, count: int, **arguments: Any
) -> tuple[partial[Any], int]:
    """Size a method so that it trains as near to ``count`` numbers on these layers as it can; give it and its count.

    The argument that ``Adapter.sized_by`` names is searched from 1 to the longest side of the layers: a coarse
    ladder, then all sizes, or 48 of them, beside its best rung. Sizes that the method refuses are passed over. A
    method without that argument, or with it given, stays as it is.

    >>> from polyad.adapters import DoRA, LoKr
    >>> model = nn.Sequential(nn.Linear(64, 64))
    >>> size_to_count(model, "*", DoRA, 512)[1], size_to_count(model, "*", LoKr, 80)[0].keywords
    (448, {'factor': 8})
    """
    method, stated = unwrap_method(method, arguments)
    sites = select_sites(model, which, ("linear", "conv", "experts"), {}, tied=False).sites
    size = getattr(method, "sized_by", Adapter.sized_by)
    if size in stated or size not in arguments_of(method):
        return partial(method, **stated), _count(sites, method, stated)
    refused: list[Exception] = []

    def off(value: int) -> float:
        try:
            return abs(_count(sites, method, {**stated, size: value}) - count)
        except (ValueError, TypeError) as error:
            refused.append(error)
            return float("inf")

    best = _nearest(off, max(max(site.shape) for site in sites))
    if off(best) == float("inf"):
        raise ValueError(f"no {size} of {method.__name__} fits these layers: {refused[0]}") from refused[0]
    return partial(method, **stated, **{size: best}), _count(sites, method, {**stated, size: best})


def _nearest(off: Callable[[int], float], most: int) -> int:
    """The size that is least off, the smallest of equals."""
    rungs = sorted({r for k in range(most.bit_length()) for r in (2**k, 3 * 2**k // 2) if 1 <= r <= most} | {most})
    tried = {r: off(r) for r in rungs}
    while True:
        best = min(tried, key=lambda r: (tried[r], r))
        sizes = sorted(tried)
        i = sizes.index(best)
        low, high = sizes[max(i - 1, 0)], sizes[min(i + 1, len(sizes) - 1)]
        between = [r for r in range(low, high + 1) if r not in tried]
        if not between:
            return best
        tried |= {r: off(r) for r in between[:: -(-len(between) // FINE)]}


def _count(sites: list[Site], method: Method, arguments: Mapping[str, Any]) -> int:
    takes, bank, total = arguments_of(method), Bank(), 0
    kinds = Counter(
        (site.shape, _experts(site), tuple((k, value_for(k, v, site)) for k, v in arguments.items()))
        for site in sites
    )
    for (shape, experts, values), often in kinds.items():
        stated = {**dict(values), **({"bank": bank} if "bank" in takes else {})}
        if "generator" in takes:
            stated["generator"] = generator(0, str(shape))
        adapter = method(shape, **{k: v for k, v in stated.items() if k != "dropout"})
        total += often * experts * sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    return total + sum(p.numel() for p in bank.parameters())


def _experts(site: Site) -> int:
    weight = site.layer._parameters.get(site.parameter or "weight")
    return 1 if site.parameter is None or weight is None else len(weight)
