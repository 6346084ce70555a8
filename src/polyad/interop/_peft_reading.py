"""The types and refusals that all readers of peft's methods share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from polyad.adapters.host.build import Method

Layers = Mapping[str, Mapping[str, Tensor]]
Read = tuple[Method, dict[str, Any], dict[str, dict[str, Tensor]]]
"""The method, its arguments, and the numbers of each layer's adapter by their names in it."""


def refuse_other_tensors(path: str, tensors: Mapping[str, Tensor], *names: str) -> None:
    """Refuse a layer whose tensors are not exactly these."""
    missing, extra = sorted(set(names) - tensors.keys()), sorted(tensors.keys() - set(names))
    if extra and not missing:
        raise ValueError(
            f"{path} has the tensors {extra} too, which are of a kind of adapter that is not read; put it into the "
            "model with peft's merge_and_unload, and load that model"
        )
    if missing:
        raise ValueError(
            f"{path} lacks the tensors {missing} and has {extra}, which no adapter of this kind has; copy "
            "the folder again"
        )


def refuse_other_shapes(path: str, tensors: Mapping[str, Tensor], *names: str) -> None:
    """Refuse tensors that are no matrices or kernels, and pairs ``_a``, ``_b`` that cannot be multiplied."""
    for name in names:
        shape, partner = tuple(tensors[name].shape), tensors.get(f"{name[:-1]}b") if name[-2:] == "_a" else None
        if len(shape) < 2 or 0 in shape:
            raise ValueError(
                f"{path} has {name} of shape {shape}, which is no matrix as an adapter's is; copy the folder again"
            )
        if partner is not None and (partner.ndim < 2 or partner.shape[0] != shape[1]):
            raise ValueError(
                f"{path} has {name} of shape {shape} and {name[:-1]}b of shape {tuple(partner.shape)}, which cannot "
                "be multiplied; copy the folder again"
            )
