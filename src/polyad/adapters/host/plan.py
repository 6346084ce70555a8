"""What attaching will do, worked out and checked before the model is touched."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from polyad.adapters.adapter import Adapter, Bank
from polyad.adapters.host.build import Method, make, needs_of, opened
from polyad.adapters.host.sites import Parts, Site, check_patterns, chosen
from polyad.adapters.host.stand_in import Made
from polyad.adapters.host.start import gradients, statistics
from polyad.models.surgery import Which
from polyad.statistics import Moments


@dataclass(frozen=True)
class Planned:
    """Adapters made for their sites, what they share, and how they were made."""

    adapters: list[tuple[Site, Adapter]]
    bank: Bank
    made: Made

    def state_dict(self) -> dict[str, Tensor]:
        """All their tensors, under the names that ``Adapters.state_dict`` gives them."""
        found = {f"bank.{key}": t for key, t in self.bank.state_dict().items()}
        for site, adapter in self.adapters:
            found |= {f"{site.name}.{key}": t for key, t in adapter.state_dict().items()}
        return found


def plan(
    model: nn.Module,
    which: Which,
    method: Method,
    *,
    of: Sequence[str] = ("linear", "conv", "experts"),
    parts: Parts | None = None,
    tied: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    loss: Callable[[], Tensor] | None = None,
    stats: Mapping[str, Moments] | None = None,
    begin: bool = True,
    **arguments: Any,
) -> Planned:
    """The adapters that ``which`` of the layers of the kinds ``of`` will get.

    ``parts`` gives rows of fused weights, {pattern: [(first, end), …]}; ``tied`` allows layers that share their
    weight with another; ``loss`` gives the scalar whose gradient a method starts from, ``stats`` what its inputs are
    like. Without ``begin`` nothing is started: numbers are to be loaded.
    """
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} is not a share of inputs; give a number from 0 up to, but not, 1")
    method, arguments = opened(method, arguments)
    sites = chosen(model, which, of, parts or {}, tied=tied)
    unfit = next((site for site in sites if dropout and site.kind in ("embedding", "experts")), None)
    if unfit is not None:
        raise ValueError(f"dropout={dropout} cannot drop inputs of {unfit.name}, which is of the kind {unfit.kind}")
    check_patterns(sites, **arguments)
    given = _given(sites, method, loss, stats) if begin else {}
    bank = Bank(seed)
    reads = "weight" in needs_of(method)
    run = functools.partial(make, method=method, arguments=arguments, seed=seed, bank=bank, reads=reads)
    made = [(site, run(site, given=given.get(site.name))) for site in sites]
    return Planned(made, bank, Made(method, arguments, seed, dropout))


def _given(
    sites: Sequence[Site],
    method: Method,
    loss: Callable[[], Tensor] | None,
    stats: Mapping[str, Moments] | None,
) -> dict[str, dict[str, Any]]:
    """What the method starts from, by site."""
    needs = needs_of(method)
    if "gradient" in needs and loss is None:
        raise ValueError("the method starts from a gradient; give loss=lambda: ..., which returns a scalar")
    slopes = gradients(sites, loss) if "gradient" in needs and loss is not None else {}
    found: dict[str, dict[str, Any]] = {}
    for site in sites:
        moments = statistics(site, needs, stats)
        found[site.name] = {"gradient": slopes[site.name]} if slopes else {}
        found[site.name] |= {} if moments is None else {"moments": moments}
    return found
