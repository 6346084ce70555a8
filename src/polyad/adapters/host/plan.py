"""Plan an attachment: make and check the adapters before the model is touched."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from polyad.adapters.adapter import Adapter, Bank
from polyad.adapters.frozen.layer_kinds import can_drop
from polyad.adapters.host.build import Method, build_adapter, frozen_weight, literals, needs_of, unwrap_method
from polyad.adapters.host.choose_trained import trained_places, trains_weight
from polyad.adapters.host.select import check_patterns, select_sites
from polyad.adapters.host.sites import Parts, Site
from polyad.adapters.host.stand_in import AdapterSpec
from polyad.adapters.host.start import gradients, statistics
from polyad.adapters.host.state import saved_tensors, tensors_by_name
from polyad.adapters.host.trained import TrainedPlace, places_of, without_gradients
from polyad.models.surgery import Which
from polyad.statistics import Moments


@dataclass(frozen=True)
class Match:
    """A weight that an adapter would change, and the count of numbers that would be trained for it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class AdapterPlan:
    """Adapters for their sites, the bank that they share, and the arguments that made them."""

    adapters: list[tuple[Site, Adapter]]
    bank: Bank
    spec: AdapterSpec
    called: bool
    """True where it is known that the model calls all of these layers."""
    trained: list[TrainedPlace]

    def state_dict(self) -> dict[str, Tensor]:
        """All their tensors, under the names that ``Adapters.state_dict`` gives them."""
        adapters = tensors_by_name(self.bank, [(site.name, a) for site, a in self.adapters], saved_tensors)
        return adapters | without_gradients(places_of(self.trained))

    def matches(self) -> list[Match]:
        """The weights that they would change. What layers share is counted at the first of them."""
        counts = [sum(p.numel() for p in a.parameters() if p.requires_grad) for _, a in self.adapters]
        counts[0] += sum(p.numel() for p in self.bank.parameters())
        return [Match(s.name, s.kind, s.shape, n) for (s, _), n in zip(self.adapters, counts, strict=True)]


def plan_adapters(
    model: nn.Module,
    which: Which,
    method: Method | str,
    *,
    of: Sequence[str] = ("linear", "conv", "experts"),
    parts: Parts | None = None,
    tied: bool = False,
    dropout: float = 0.0,
    trained: str | Sequence[str] = (),
    seed: int = 0,
    loss: Callable[[], Tensor] | None = None,
    stats: Mapping[str, Moments] | None = None,
    begin: bool = True,
    **arguments: Any,
) -> AdapterPlan:
    """Make the adapters that the layers ``which`` of the kinds ``of`` will get, and attach none.

    ``parts`` gives rows of fused weights, {pattern: [(first, end), …]}; ``tied`` allows layers that share their
    weight with another; ``loss`` gives the scalar whose gradient a method starts from, ``stats`` what its inputs are
    like. ``dropout`` spares embeddings and mixtures, whose inputs cannot be dropped. ``trained`` names modules and
    parameters that are trained whole and saved beside the adapter, and take none; LoRA's own "A", "B" and "both"
    say which factor it trains. Without ``begin`` nothing is started: numbers are to be loaded.
    """
    if isinstance(trained, str) and trained in literals(method, "trained"):  # LoRA's factors, as lora:trained=B says
        arguments, trained = {**arguments, "trained": trained}, ()
    method, arguments = unwrap_method(method, {**arguments, "dropout": dropout} if dropout else arguments)
    dropout = arguments.pop("dropout", 0.0)  # it may stand in a text, lora:rank=8,dropout=0.1
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} is not a share of inputs; give a number of at least 0 and below 1")
    names, places = trained_places(model, trained, tied=tied)
    sites, called = select_sites(model, which, of, parts or {}, tied=tied)
    sites = _without_trained(sites, names)
    if dropout and not any(can_drop(frozen_weight(site)) for site in sites):
        raise ValueError(
            f"dropout={dropout} can drop inputs of none of the layers chosen, such as {sites[0].name} of the kind "
            f"{sites[0].kind}; attach with dropout=0"
        )
    check_patterns(sites, **arguments)
    starts = _starts(sites, method, loss, stats) if begin else {}
    bank = Bank(seed)
    reads = "weight" in needs_of(method)
    build = functools.partial(build_adapter, method=method, arguments=arguments, seed=seed, bank=bank, reads=reads)
    adapters = [(site, build(site, start=starts.get(site.name))) for site in sites]
    return AdapterPlan(adapters, bank, AdapterSpec(method, arguments, seed, dropout, tuple(names)), called, places)


def _without_trained(sites: list[Site], names: Sequence[str]) -> list[Site]:
    """The sites without those whose weight is trained whole; ValueError where none is left."""
    left = [site for site in sites if not trains_weight(names, site.path, site.parameter or "weight")]
    if not left:
        raise ValueError(
            f"trained= names every layer that was chosen, such as {sites[0].name}, and leaves none to adapt; name "
            "fewer modules in it"
        )
    return left


def _starts(
    sites: Sequence[Site],
    method: Method,
    loss: Callable[[], Tensor] | None,
    stats: Mapping[str, Moments] | None,
) -> dict[str, dict[str, Any]]:
    """The gradient and statistics that the method starts from, by site."""
    needs = needs_of(method)
    if "gradient" in needs and loss is None:
        raise ValueError("the method starts from a gradient; give loss=lambda: ..., which returns a scalar")
    slopes = gradients(sites, loss) if "gradient" in needs and loss is not None else {}
    starts: dict[str, dict[str, Any]] = {}
    for site in sites:
        moments = statistics(site, needs, stats)
        starts[site.name] = {"gradient": slopes[site.name]} if slopes else {}
        starts[site.name] |= {} if moments is None else {"moments": moments}
    return starts
