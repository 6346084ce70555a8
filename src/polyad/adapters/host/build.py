"""Build adapters for their sites: arguments by pattern, draws by seed, starts from the weight or a gradient."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from polyad import _check
from polyad._arguments import check_names, method_from
from polyad._card import Card, methods
from polyad.adapters.adapter import Adapter, Bank, generator
from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.frozen.layer_kinds import FrozenExpert, frozen_view
from polyad.adapters.host.experts import stack_experts
from polyad.adapters.host.sites import Site

Method = Callable[..., Adapter]
"""Makes an adapter for a weight's shape: a class of the catalogue, or any function like one."""


@functools.cache
def arguments_of(method: Method) -> frozenset[str]:
    """The names of a method's arguments."""
    return frozenset(inspect.signature(method).parameters)


def literals(method: Method | str, argument: str) -> tuple[Any, ...]:
    """The values that a method states for an argument of its own, ("both", "A", "B"); none where it states none."""
    function, _ = unwrap_method(method, {})
    return get_args(get_type_hints(function.__init__ if isinstance(function, type) else function).get(argument))


def method_of(text: str) -> partial[Any]:
    """The adapter of the catalogue that has this name, with its arguments; ``dropout`` may be among them.

    >>> method_of("lora:rank=4,alpha=8").keywords
    {'rank': 4, 'alpha': 8}
    """
    return method_from(text, ["adapter"])


def unwrap_method(method: Method | str, arguments: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
    """The method inside ``functools.partial``, or that a text names, and all its arguments."""
    stated = dict(arguments)
    if isinstance(method, str):
        method = method_of(method)
    if not callable(method):
        raise TypeError(f"method={method!r} makes no adapters; give a class such as polyad.adapters.LoRA")
    while isinstance(method, partial):
        if method.args:
            raise ValueError(f"partial({method.func.__name__}, ...) fixes positional arguments; fix them by name")
        method, stated = method.func, {**method.keywords, **stated}
    listed = card_of(method)
    return method, stated if listed is None else check_names(listed, stated)


def card_of(method: Method) -> Card | None:
    """The method's card, if it is in the catalogue."""
    return next((card for card in methods("adapter") if card.function is method), None)


def needs_of(method: Method) -> frozenset[str]:
    """The names of what a method starts from, as its card states them."""
    card = card_of(method)
    return frozenset() if card is None else frozenset().union(*card.needs.values())


def value_for(argument: str, value: Any, site: Site) -> Any:
    """The value of an argument for a site: of {pattern: value} the one whose pattern matches, "*" where none does."""
    if not isinstance(value, Mapping):
        return value
    matches = [pattern for pattern in value if pattern != "*" and site.fits(pattern)]
    if len(matches) > 1:
        raise ValueError(
            f"{argument} is given for {site.name} by {matches[0]!r} and by {matches[1]!r}; let one pattern match it"
        )
    if not matches and "*" not in value:
        raise ValueError(f"{argument} is given by patterns, and none matches {site.name}; add '*' for all others")
    return value[matches[0] if matches else "*"]


def build_adapter(
    site: Site,
    method: Method,
    arguments: Mapping[str, Any],
    *,
    seed: int,
    bank: Bank,
    start: Mapping[str, Any] | None,
    reads: bool,
) -> Adapter:
    """Build the adapter of a site in the dtype of its training; its draws depend on the seed and the site alone.

    ``start`` maps "gradient" and "moments" to what the method starts from; None where its numbers will be loaded.
    ``reads`` says whether its card needs the weight.
    """
    takes = arguments_of(method)
    chosen = {k: value_for(k, v, site) for k, v in arguments.items()}
    if "bank" in takes:
        chosen["bank"] = bank
    weight = site.layer._parameters.get(site.parameter or "weight")
    count = 1 if site.parameter is None or weight is None else len(weight)
    dtype = trained_dtype(weight)
    each: list[Adapter] = []
    try:
        for name, value in chosen.items():
            _check.number(method, name, value)
        for i in range(count):
            if "generator" in takes:
                chosen["generator"] = generator(seed, site.name, str(i))
            each.append(in_dtype(_require_adapter(method(site.shape, **chosen)), dtype))
        for i, adapter in enumerate(each):
            _start(adapter, site, i, start, reads=reads)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{site.name} of shape {site.shape}: {error}") from error
    if dtype == torch.float64:
        bank.to(dtype)
    adapter = each[0] if site.parameter is None else stack_experts(each)
    device = weight if weight is not None else next(site.layer.parameters(), next(site.layer.buffers(), None))
    return adapter if device is None or device.device.type == "cpu" else adapter.to(device.device)


def _require_adapter(product: Any) -> Adapter:
    if not isinstance(product, Adapter):
        raise TypeError(
            f"the method makes a {type(product).__name__}, which is no Adapter; give a class such as "
            "polyad.adapters.LoRA, or a function that returns one"
        )
    return product


def in_dtype(adapter: Adapter, dtype: torch.dtype) -> Adapter:
    """The adapter in this dtype; asking first is quicker than torch's ``to``."""
    floats = (t for t in (*adapter.parameters(), *adapter.buffers()) if t.is_floating_point())
    return adapter if all(t.dtype == dtype for t in floats) else adapter.to(dtype)


def trained_dtype(weight: Tensor | None) -> torch.dtype:
    """float64 for such weights and float32 for all others: half precision loses small steps."""
    return torch.float64 if weight is not None and weight.dtype == torch.float64 else torch.float32


def _start(adapter: Adapter, site: Site, expert: int, start: Mapping[str, Any] | None, *, reads: bool) -> None:
    base, kind = frozen_weight(site, expert), type(adapter)
    if reads:
        _refuse_missing("the weight", base.weight)
    with torch.no_grad():
        if kind.derive is not Adapter.derive:
            adapter.derive(base)
        if start is not None and kind.init is not Adapter.init:
            gradient = start.get("gradient")
            slope = gradient if gradient is None or site.parameter is None else gradient[expert]
            adapter.init(
                base, **{**start, "gradient": None if slope is None else _refuse_missing("the gradient", slope)}
            )


def _refuse_missing(name: str, x: Tensor) -> Tensor:
    """Refuse numbers that are on the meta device, NaN or infinite."""
    if x.is_meta:
        raise ValueError(f"the method starts from {name}, whose numbers are not there (device meta); load them first")
    return _check.finite(name, x)


def weight_of(site: Site) -> Tensor:
    """The dense weight of a site; the refusal of one that cannot be read names it."""
    try:
        return frozen_weight(site).weight
    except ValueError as error:
        raise ValueError(f"{site.name}: {error}") from None


def frozen_weight(site: Site, expert: int = 0) -> Frozen:
    """The frozen weight of a site."""
    if site.parameter is None:
        base = frozen_view(site.layer, site.part)
        assert base is not None
        return base
    weight = site.layer._parameters[site.parameter]
    assert weight is not None
    turned = bool(getattr(site.layer, "is_transposed", False))
    return FrozenExpert(weight[expert].mT if turned else weight[expert])
