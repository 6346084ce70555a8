"""Operations on attached adapters: weighted sums, compression into another rank, and the rank that is used.

A weight is known by the name of its site, as ``Adapters.of`` has it: a layer's path, with ``[first:end]`` for a part
of a fused weight, and with the parameter's name for a mixture's experts, which come with a leading dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyad import _check
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.host.build import weight_of
from polyad.adapters.host.merge import refuse_changed_biases
from polyad.adapters.host.sites import KINDS, Site, adaptable_sites, literal, patterns_for, refuse_overlap
from polyad.adapters.host.trained import refuse_trained
from polyad.adapters.methods.lora import LoRA
from polyad.adapters.sharded import sharded_parts, unsharded
from polyad.formats import LowRank
from polyad.linalg import evenly, truncated_svd

Change = LowRank | Tensor
"""A change of a weight: (out, the rest), with a leading dimension for experts."""


def updates(adapters: Adapters, name: str) -> dict[str, Change]:
    """The change of each weight by an adapter, its scale included: low-rank where its update is, dense elsewhere."""
    adapters.of(name)  # refuses a name that is not attached
    if adapters.merged:
        raise ValueError("the adapters are merged into the weights that they change; call unmerge() first")
    copy = bool(sharded_parts(adapters.model))  # what a forward pass left whole is freed afterwards
    with torch.no_grad():
        return {
            path + suffix: _kept(update, copy=copy)
            for path, layer in adapters.layers().items()
            for suffix, update in (layer.updates(name) if name in layer.specs else ())
        }


def _kept(update: Change, *, copy: bool) -> Change:
    """The change without gradients; a copy of tensors that are freed afterwards."""
    tensors = (update.left, update.right) if isinstance(update, LowRank) else (update,)
    numbers = [t.detach().clone() if copy else t.detach() for t in tensors]
    return LowRank(*numbers) if isinstance(update, LowRank) else numbers[0]


def changes(adapters: Adapters, name: str) -> dict[str, Tensor]:
    """The change of each weight by an adapter, its scale included, as a dense matrix (out, the rest)."""
    return {site: _dense(update) for site, update in updates(adapters, name).items()}


def combine(
    adapters: Adapters,
    name: str,
    weights: Mapping[str, float],
    *,
    rank: int | None = None,
    tol: float | None = None,
    orthonormal: bool = False,
) -> dict[str, float]:
    """Attach ``name``, a LoRA that is ``Σ weights[n] ΔW_n`` of attached adapters, and return the errors by weight.

    Exactly one of ``rank`` and ``tol`` is given; errors are relative, in the Frobenius norm, and the least that the
    rank allows. Weights that sum to one average adapters, as a server does with its clients' (federated averaging:
    the product is averaged and factored anew, not A and B for themselves); {"a": 1, "b": -1} takes a task away (task
    arithmetic); one adapter alone is compressed, whatever its method. A weight that an adapter leaves alone counts
    as zero there. B and A have equal norms; with ``orthonormal`` the rows of A are orthonormal and B holds the rest,
    the form in which FedSVD sends an average back to be trained in B alone. Nothing is trained; the result can be.

    Updates of low rank are never multiplied out: of ranks r in all, 2 (out + in) r² operations a matrix. Others cost
    a singular value decomposition of the dense sum.

    >>> from polyad.adapters import Adapters, LoKr
    >>> host = Adapters(torch.nn.Sequential(torch.nn.Linear(6, 8)))
    >>> _ = host.attach("a", "*", LoKr, factor=2)
    >>> combine(host, "small", {"a": 1.0}, rank=2)
    {'0': 0.0}
    """
    if not weights:
        raise ValueError("weights is empty; name at least one adapter, as in {'a': 1.0}")
    refuse_trained(adapters.common.trained, weights, "a LoRA holds no such sum; put the adapter in by merge()")
    _check.exactly_one(rank=rank, tol=tol)
    terms: dict[str, list[Change]] = {}
    for source, weight in weights.items():
        _check.finite(f"the weight of {source}", torch.tensor(float(weight)))
        refuse_changed_biases(adapters.layers(), source)
        for site, update in updates(adapters, source).items():
            terms.setdefault(site, []).append(update * weight)
    refuse_overlap(terms)
    factors, errors = dict[str, LowRank](), dict[str, float]()
    for site, changes_here in terms.items():
        total = _sum(changes_here)
        factors[site] = low = _cut(total, None if rank is None else min(rank, *total.shape[-2:]), tol)
        size = float(_values(total).norm())
        errors[site] = float(_values(_sum([total, low * -1.0])).norm()) / size if size else 0.0
        if orthonormal:
            q = torch.linalg.qr(low.right.mT)[0]
            factors[site] = LowRank(low.left @ (low.right @ q), q.mT)
    attach_factors(adapters, name, factors)
    return errors


def attach_factors(adapters: Adapters, name: str, factors: Mapping[str, LowRank]) -> None:
    """Attach a LoRA whose updates are these, by the names of their sites."""
    ranks = {literal(site): max(1, low.rank) for site, low in factors.items()}
    which, parts = patterns_for(factors, adaptable_sites(adapters.model))
    adapters.attach(name, which, LoRA, rank=ranks, of=KINDS, parts=parts, tied=True)
    loras: dict[str, Any] = adapters.of(name)
    with torch.no_grad():
        for site, low in factors.items():
            for parameter, numbers in ((loras[site].B, low.left), (loras[site].A, low.right)):
                parameter.copy_(numbers) if low.rank else parameter.zero_()


def diagnose(adapters: Adapters, name: str, *, tol: float = 0.01) -> dict[str, dict[str, float]]:
    """Measure the use that an adapter makes of its rank, for every weight; all zero where nothing changes.

    ``drift`` = ‖ΔW‖ / ‖W‖; ``rank``, the least within a relative error ``tol`` of ΔW; ``stable_rank`` = ‖ΔW‖² / σ₁²;
    ``condition`` = σ₁ / σ of that rank, 1 where all directions that are used are used alike. Of the experts of a
    mixture the largest of each is given.
    """
    figures: dict[str, dict[str, float]] = {}
    with unsharded(adapters.model):
        bases = {site.name: _norms(site) for site in adapters.sites(name)}
    for site, update in updates(adapters, name).items():
        values = torch.atleast_2d(_values(update))
        size = values.norm(dim=-1)
        left = values.square().flip(-1).cumsum(-1).flip(-1)
        rank = (left > (tol * size.unsqueeze(-1)) ** 2).sum(-1)
        last = values.gather(-1, (rank - 1).clamp_min(0).unsqueeze(-1)).squeeze(-1)
        nonzero = size > 0
        figures[site] = {
            "drift": float((size / bases[site].clamp_min(1e-300)).max()),
            "rank": int(rank.max()),
            "stable_rank": float((size / values[:, 0]).square()[nonzero].max()) if bool(nonzero.any()) else 0.0,
            "condition": float((values[:, 0] / last)[nonzero].max()) if bool(nonzero.any()) else 0.0,
        }
    return figures


def overlap(adapters: Adapters, first: str, second: str) -> dict[str, float]:
    """The cosine of two adapters' changes of every weight that both change, in [-1, 1]; 0 where one is zero."""
    one, other = updates(adapters, first), updates(adapters, second)
    cosines: dict[str, float] = {}
    for site in sorted(one.keys() & other.keys()):
        a, b = one[site], other[site]
        if isinstance(a, LowRank) and isinstance(b, LowRank):
            a, b = a.to(torch.float64), b.to(torch.float64)
            product = ((a.left.mT @ b.left) * (a.right @ b.right.mT)).sum()
        else:
            product = (_dense(a).double() * _dense(b).double()).sum()
        size = float(_values(a).norm() * _values(b).norm())
        cosines[site] = float(product) / size if size else 0.0
    return cosines


def thin_factor(update: Change, *, right: bool = False) -> Tensor:
    """A matrix (out, few) with the left singular vectors and the singular values of a change, in float64; with
    ``right`` one (the rest, few) with the right ones."""
    if not isinstance(update, LowRank):
        return (update.mT if right else update).double()
    one, other = (update.right.mT, update.left) if right else (update.left, update.right.mT)
    return one.double() @ torch.linalg.qr(other.double())[1].mT


def _values(update: Change) -> Tensor:
    """The singular values of a change, in float64."""
    return torch.linalg.svdvals(thin_factor(update))


def _norms(site: Site) -> Tensor:
    """The norm of a weight, or of that of every expert, in float64."""
    if site.parameter is None:
        return weight_of(site).double().norm()
    experts = site.layer._parameters[site.parameter]
    assert experts is not None
    return experts.double().flatten(1).norm(dim=1)


def _dense(update: Change) -> Tensor:
    return update.to_dense() if isinstance(update, LowRank) else update


def _sum(terms: Sequence[Change]) -> Change:
    """The sum, low-rank where that takes fewer numbers than a matrix."""
    low = [term for term in terms if isinstance(term, LowRank)]
    n, m = terms[0].shape[-2:]
    if len(low) < len(terms) or sum(term.rank for term in low) * (n + m) > n * m:
        return torch.stack([_dense(term).double() for term in terms]).sum(0)
    return LowRank(torch.cat([t.left.double() for t in low], -1), torch.cat([t.right.double() for t in low], -2))


def _cut(total: Change, rank: int | None, tol: float | None) -> LowRank:
    if isinstance(total, LowRank):
        return total.round(rank) if rank is not None else total.round(tol=tol)
    return LowRank(*evenly(*truncated_svd(total, rank, tol=tol)))
