"""The methods of peft's that multiply a layer's inputs or outputs, read as methods of polyad: IA3 and OFT."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from polyad.adapters import IA3, OFT
from polyad.adapters.frozen.layer_kinds import FrozenConv
from polyad.adapters.host.build import frozen_weight
from polyad.adapters.host.sites import Site, literal
from polyad.interop._peft_names import unwrapped_path
from polyad.interop._peft_reading import Layers, Read, refuse_other_shapes, refuse_other_tensors


def read_ia3(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    """Factors of the outputs, of the inputs where the settings call a layer feedforward."""
    sides: dict[str, str] = {}
    numbers: dict[str, dict[str, Tensor]] = {}
    for path, site in sites.items():
        refuse_other_tensors(path, layers[path], "ia3_l")
        refuse_other_shapes(path, layers[path], "ia3_l")
        inputs = _is_feedforward(stated.get("feedforward_modules"), unwrapped_path(path))
        if inputs and getattr(frozen_weight(site), "groups", 1) != 1:
            raise ValueError(
                f"{path} is a convolution of groups, whose inputs have factors of their own in peft's IA3 and share "
                "them here; merge it into the model with peft's merge_and_unload, and load that model"
            )
        sides[literal(path)] = "inputs" if inputs else "outputs"
        numbers[path] = {"factors": layers[path]["ia3_l"].flatten()}
    return IA3, {"side": sides}, numbers


def _is_feedforward(names: Any, path: str) -> bool:
    """True for layers whose inputs are scaled; peft compares ends of paths here, not of names."""
    if isinstance(names, str):
        return re.fullmatch(names, path) is not None
    return any(path.endswith(name) for name in names or ())


def read_oft(stated: Any, sites: Mapping[str, Site], layers: Layers, shared: Any) -> Read:  # noqa: ARG001
    """Rotations of the inputs; of an embedding, of its rows, which turns them the other way.

    A series in peft is of the opposite sign to its solved transform, (I - Q) (I + Q)⁻¹.
    """
    share, series = bool(stated.get("block_share")), bool(stated.get("use_cayley_neumann", True))
    radius = float(stated.get("eps", 6e-5)) if stated.get("coft") else None
    terms = _terms(int(stated.get("num_cayley_neumann_terms", 5))) if series else None
    blocks: dict[str, int] = {}
    numbers: dict[str, dict[str, Tensor]] = {}
    for path, site in sites.items():
        rows = site.kind == "embedding"
        key = "oft_embedding_R" if rows else "oft_R"
        refuse_other_tensors(path, layers[path], key)
        refuse_other_shapes(path, layers[path], key)
        _refuse_wide_convolution(path, site)
        tensor = layers[path][key]
        blocks[literal(path)] = block = (1 + isqrt(1 + 8 * tensor.shape[1])) // 2
        adapter = OFT(site.shape, block=block, share=share, terms=terms, radius=radius)
        if adapter.skew.shape != tensor.shape:
            raise ValueError(
                f"{path} has {key} of shape {tuple(tensor.shape)}, and rotations of blocks of {block} of its "
                f"{site.shape} have {tuple(adapter.skew.shape)}; load it onto the model it is of"
            )
        with torch.no_grad():
            adapter.skew.copy_(tensor if rows == series else -tensor)
        adapter.limit()
        numbers[path] = {"skew": adapter.skew.detach()}
    return OFT, {"block": blocks, "share": share, "terms": terms, "radius": radius}, numbers


def _terms(count: int) -> int:
    """The count of terms that peft's series of this setting has: four for three, too."""
    if count < 2:
        raise ValueError(
            f"num_cayley_neumann_terms={count} is a series without a rotation; at least 2 are needed, retrain it so"
        )
    return 4 if count == 3 else count


def _refuse_wide_convolution(path: str, site: Site) -> None:
    base = frozen_weight(site)
    if isinstance(base, FrozenConv) and (base.groups != 1 or any(side != 1 for side in base.kernel)):
        raise ValueError(
            f"{path} is a convolution with the kernel {base.kernel} and {base.groups} groups, whose patches peft's "
            "OFT adds up where they overlap, so that it is no change of the weight and cannot be read; only kernels "
            "of one entry without groups are"
        )
