"""Absorption of adapters of quantised training into the codes below them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.host.merge import owners, refuse_unmergeable
from polyad.adapters.methods.loqt import LoQT, put_format
from polyad.formats import Quantized
from polyad.quantize import round_to_nearest


def absorb(adapters: Adapters, name: str, loss: Callable[[], Tensor], *, rounds: int = 5) -> dict[str, float]:
    """Merge the LoQT called ``name`` into the weights below it, and begin anew from the gradient of ``loss()``.

    For each layer W is its weight with the update, P the leading singular vectors of W's gradient, and codes Q and B
    are those of the least ``‖W - Q - alpha Pᵀ B‖`` over ``rounds`` turns of ``B ← P⁺ (W - Q)`` and ``Q ← codes of
    W - alpha Pᵀ B``; with none, and on weights that are no codes, B is zero. Q has the bits, groups and dtypes that
    it had. Returns the relative error of each layer. Layers must be linear, of a tensor or of a ``Quantized`` format.

    The gradient is that at W itself, where the authors take it at W rounded; so dense gradients and weights need not
    be there but for one layer at a time. Grids are uniform, not of normal quantiles. The optimiser's moments are the
    caller's, and stay as they are in the authors' code. Costs a forward and a backward pass, a singular value
    decomposition a layer, and ``rounds`` quantisations.

    >>> from polyad.layers import Linear
    >>> model = nn.Sequential(Linear(round_to_nearest(torch.eye(8), 4)))
    >>> host = Adapters(model)
    >>> _ = host.attach("a", "*", LoQT, rank=2, group=8)
    >>> errors = absorb(host, "a", lambda: (model(torch.eye(8)) + torch.eye(8)).square().sum())
    >>> errors["0"] < 0.1
    True
    """
    terms = _terms(adapters, name)
    directions = _directions(terms, loss)
    errors: dict[str, float] = {}
    with torch.no_grad():
        for path, (layer, adapter) in terms.items():
            base = layer.base
            weight = base.weight + adapter.scale * adapter.update(base).to_dense().to(base.weight.dtype)
            stored, new = base.stored_weight, directions.get(path)
            if new is not None:
                adapter.turn(new)
            if isinstance(stored, Quantized):
                codes, B = _nearest(weight, adapter, stored, rounds)
                rest = weight - codes.to_dense() - adapter.scale * adapter.product(B)
                put_format(layer.layer.weight, codes)
            else:
                layer.layer._parameters["weight"].copy_(weight)  # pyright: ignore
                B, rest = torch.zeros_like(adapter.B), torch.zeros(())
            adapter.B.copy_(B)
            errors[path] = float(rest.norm()) / max(float(weight.norm()), 1e-300)
    return errors


def merge_steps(total: int, *, first: int = 100, growth: float = 1.2) -> list[int]:
    """The steps of ``total`` before which to ``absorb``: 0, ``first``, and then ever later, by first + ⌊growthᵏ⌋.

    The last is more than ``first`` steps before the end. ``growth=0`` keeps the distance.

    >>> merge_steps(100, first=20, growth=2)
    [0, 20, 42, 66]
    """
    if first < 1 or growth < 0:
        raise ValueError(f"first={first} must be 1 or more and growth={growth} at least 0")
    steps, at = [0], first
    while at + first < total:
        steps.append(at)
        at += first + int(growth ** len(steps[1:]))
    return steps


def _terms(adapters: Adapters, name: str) -> dict[str, tuple[Adapted, LoQT]]:
    """The layers and adapters to absorb, by path; whatever cannot be absorbed is refused."""
    adapters.of(name)  # refuses a name that is not attached
    if name not in adapters.active or adapters.merged or adapters.active[name] != 1:
        raise ValueError(
            f"{name!r} is merged or does not act with the weight 1; to absorb it, unmerge, and activate it with that "
            "weight"
        )
    terms: dict[str, tuple[Adapted, LoQT]] = {}
    for path, layer in adapters.layers().items():
        if name not in layer.specs:
            continue
        term = layer.routes[name][0] if isinstance(layer, Adapted) else None
        adapter = None if term is None else term.adapter
        if term is None or not isinstance(adapter, LoQT) or term.base.kind != "linear" or term.base.part is not None:
            raise ValueError(
                f"{path} of {name!r} is no LoQT of a whole linear layer; only such adapters can be absorbed"
            )
        assert isinstance(layer, Adapted)
        if not (isinstance(term.base.stored_weight, Quantized) or term.base.mergeable) or term.base.transposed:
            raise ValueError(
                f"the weight of {path} is neither codes (Quantized) nor a tensor (out, in); attach {name!r} to "
                "other layers"
            )
        if term.base.mergeable:
            refuse_unmergeable(path, layer, owners(adapters.model, adapters.common.banks.values()))
        if not adapter.B.requires_grad:
            raise ValueError(f"{name!r} is frozen, so that no gradient reaches {path}; thaw it to absorb it")
        terms[path] = (layer, adapter)
    return terms


def _directions(terms: dict[str, tuple[Adapted, LoQT]], loss: Callable[[], Tensor]) -> dict[str, Tensor | None]:
    """The next P of every layer, from one dense gradient after another as the backward pass comes."""
    calls: dict[str, int] = dict.fromkeys(terms, 0)
    slopes: dict[str, Tensor] = {}
    directions: dict[str, Tensor | None] = {}

    def watch(path: str) -> Callable[..., None]:
        def add_slope(x: Tensor, slope: Tensor) -> None:
            gradient = slope.flatten(0, -2).mT.float() @ x.flatten(0, -2).float()
            slopes[path] = slopes[path] + gradient if path in slopes else gradient
            calls[path] -= 1
            if not calls[path]:
                directions[path] = terms[path][1].directions(slopes.pop(path))

        def note_call(_: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
            x = inputs[0].detach()
            calls[path] += 1
            y.register_hook(lambda slope: add_slope(x, slope))

        return note_call

    handles = [layer.register_forward_hook(watch(path)) for path, (layer, _) in terms.items()]
    try:
        with torch.enable_grad():
            torch.autograd.grad(loss(), [adapter.B for _, adapter in terms.values()], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return directions


def _nearest(weight: Tensor, adapter: LoQT, like: Quantized, rounds: int) -> tuple[Quantized, Tensor]:
    """Codes and the B beside them that leave the least of a weight."""
    best, B = _requantize(weight, like), torch.zeros_like(adapter.B)
    least = float((weight - best.to_dense()).norm())
    codes = best
    for _ in range(rounds):
        factor = adapter.solve_factor((weight - codes.to_dense()).to(adapter.B.dtype))
        rest = float((weight - codes.to_dense() - adapter.scale * adapter.product(factor)).norm())
        if rest < least:
            best, B, least = codes, factor, rest
        codes = _requantize(weight - adapter.scale * adapter.product(factor).to(weight.dtype), like)
    return best, B


def _requantize(weight: Tensor, like: Quantized) -> Quantized:
    zero = like.zero.dtype if isinstance(like.zero, Tensor) else torch.uint8
    return round_to_nearest(
        weight,
        like.bits,
        group=like.block,
        symmetric=like.zero is None,
        scale_dtype=like.scale.dtype,
        zero_dtype=zero,
    )
