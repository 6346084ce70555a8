"""Starting points of methods besides the weight: its gradient, and statistics of a layer's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from polyad.adapters.frozen.foreign_weight import is_foreign
from polyad.adapters.host.sites import Site
from polyad.models.layer_matrices import is_transposed
from polyad.statistics import Moments


def gradients(sites: Sequence[Site], loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """The gradient of a loss by the weight of every site, in the site's shape; one forward and backward pass."""
    weights: list[nn.Parameter] = []
    for site in sites:
        weight = site.layer._parameters.get(site.parameter or "weight")
        if weight is None or is_foreign(weight):
            raise ValueError(
                f"the weight of {site.name} is no floating-point tensor and has no gradient, from which the method "
                "starts; leave this layer out, or choose a method that starts without one"
            )
        weights.append(weight)
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            value = loss()
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"loss() gives {what}; return one number that depends on the weights, such as a mean()"
                )
            slopes = torch.autograd.grad(value, weights, allow_unused=True)
    finally:
        for weight, flag in zip(weights, before, strict=True):
            weight.requires_grad_(flag)
    return {site.name: _to_site_shape(site, g) for site, g in zip(sites, slopes, strict=True)}


def _to_site_shape(site: Site, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        raise ValueError(
            f"the loss does not depend on the weight of {site.name}; run that layer in it, or leave it out"
        )
    turned = is_transposed(site.layer) or bool(getattr(site.layer, "is_transposed", False))
    gradient = gradient.mT if turned else gradient
    return gradient if site.part is None else gradient[site.part[0] : site.part[1]]


def statistics(site: Site, needs: frozenset[str], stats: Mapping[str, Moments] | None) -> Moments | None:
    """The statistics of a site's inputs, None where they are not needed; refused where needed and missing."""
    if not needs - {"weight", "gradient"}:
        return None
    if stats is None or site.path not in stats:
        wanted = sorted(needs - {"weight", "gradient"})
        raise ValueError(
            f"{site.name} starts from the statistics {wanted} of its inputs; give stats=polyad.models.collect(model, "
            "{path: needs}, batches) with this path in it"
        )
    return stats[site.path]
