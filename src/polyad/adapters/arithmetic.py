"""Operations on attached adapters: weighted sums, compression into another rank, and what an adapter uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polyad.adapters.adapted import Adapted
from polyad.adapters.host import Adapters
from polyad.adapters.lora import LoRA
from polyad.formats import LowRank
from polyad.linalg import evenly, truncated_svd


def changes(adapters: Adapters, name: str) -> dict[str, Tensor]:
    """What an adapter adds to each weight, its scale included: matrices (out, the rest) by the path of their layer.

    Dense, one layer's numbers each. Parts of fused weights and experts are refused.
    """
    adapters.of(name)  # a sentence for a name that is not attached
    found: dict[str, Tensor] = {}
    for path, layer in adapters.layers().items():
        terms = layer.routes.get(name, ()) if isinstance(layer, Adapted) else None
        if terms is None or any(term.base.part is not None for term in terms):
            raise ValueError(f"{path} holds experts or parts of a fused weight; operations know whole layers only")
        with torch.no_grad():
            for term in terms:
                update = term.adapter.update(term.base)
                found[path] = (term.base.dense(update) * term.adapter.scale).flatten(1).detach()
    return found


def combine(
    adapters: Adapters, name: str, weights: Mapping[str, float], *, rank: int | None = None, tol: float | None = None
) -> dict[str, float]:
    """Attach ``name``, a LoRA that is ``Σ weights[n] ΔW_n`` of attached adapters, and return its error on each layer.

    Exactly one of ``rank`` and ``tol`` is given; errors are relative, in the Frobenius norm, and the least that the
    rank allows. Weights that sum to one average adapters, {"a": 1, "b": -1} takes a task away (task arithmetic), and
    one adapter alone is compressed, whatever its method. A layer that an adapter leaves alone counts as zero there.
    Nothing is trained; the result can be. Costs one singular value decomposition of each layer's matrix.

    >>> from polyad.adapters import Adapters, LoKr
    >>> host = Adapters(torch.nn.Sequential(torch.nn.Linear(6, 8)))
    >>> _ = host.attach("a", "*", LoKr, factor=2)
    >>> combine(host, "small", {"a": 1.0}, rank=2)
    {'0': 0.0}
    """
    if not weights:
        raise ValueError("weights is empty; name at least one adapter, as in {'a': 1.0}")
    totals: dict[str, Tensor] = {}
    for own, weight in weights.items():
        for path, change in changes(adapters, own).items():
            totals[path] = weight * change + totals.get(path, torch.zeros_like(change))
    found: dict[str, LowRank] = {}
    errors: dict[str, float] = {}
    for path, total in totals.items():
        least = None if rank is None else min(rank, *total.shape)
        found[path] = LowRank(*evenly(*truncated_svd(total.double(), least, tol=tol)))
        size = float(total.norm())
        errors[path] = float((found[path].to_dense() - total).norm()) / size if size else 0.0
    attach_factors(adapters, name, found)
    return errors


def attach_factors(adapters: Adapters, name: str, factors: Mapping[str, LowRank]) -> None:
    """Attach a LoRA whose updates are these, by the path of their layer."""
    ranks = {path: max(1, low.rank) for path, low in factors.items()}
    adapters.attach(name, list(factors), LoRA, rank=ranks)
    made: dict[str, Any] = adapters.of(name)
    with torch.no_grad():
        for path, low in factors.items():
            own = made[path]
            for held, given in ((own.B, low.left), (own.A, low.right)):
                held.copy_(given) if low.rank else held.zero_()


def diagnose(adapters: Adapters, name: str, *, tol: float = 0.01) -> dict[str, dict[str, float]]:
    """For every layer: ``drift`` = ‖ΔW‖ / ‖W‖, ``rank``, the least within a relative error ``tol`` of ΔW, and
    ``stable_rank`` = ‖ΔW‖² / σ₁²; all zero where nothing changes."""
    found: dict[str, dict[str, float]] = {}
    for path, change in changes(adapters, name).items():
        base = adapters.layers()[path]
        assert isinstance(base, Adapted)
        values = torch.linalg.svdvals(change.double())
        size = float(values.norm())
        left = values.square().flip(0).cumsum(0).flip(0)
        found[path] = {
            "drift": size / max(float(base.base.weight.double().norm()), 1e-300),
            "rank": int((left > (tol * size) ** 2).sum()),
            "stable_rank": size**2 / float(values[0]) ** 2 if size else 0.0,
        }
    return found


def overlap(adapters: Adapters, first: str, second: str) -> dict[str, float]:
    """The cosine of two adapters' changes on every layer that both change, in [-1, 1]; 0 where one is zero."""
    one, other = changes(adapters, first), changes(adapters, second)
    found: dict[str, float] = {}
    for path in one.keys() & other.keys():
        size = float(one[path].norm() * other[path].norm())
        found[path] = float((one[path] * other[path]).sum()) / size if size else 0.0
    return dict(sorted(found.items()))
