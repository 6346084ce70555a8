"""A compressed model as ``save_pretrained`` writes it: its tensors, and a description of what is no plain layer."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.utils.quantization_config import QuantizationConfigMixin

from polyad._stated import check_stated
from polyad._versions import NEWEST, read_version
from polyad.models.manifest import differences, split_ties, unsaved_buffers, weights_before_division
from polyad.models.stated import AGAIN, Pretrained

METHOD = "polyad"


class PolyadQuantization(QuantizationConfigMixin):
    """The ``quantization_config`` of a compressed model: what its layers are, as in polyad's own folders.

    ``modules`` maps paths to specs and ``ties`` names to the tensors that they share; ``dtype`` is the model's when
    it was saved, and ``wrapped`` names tensors that have one dimension more in the file.
    """

    def __init__(
        self,
        modules: Mapping[str, Any] | None = None,
        ties: Mapping[str, str] | None = None,
        dtype: str | None = None,
        wrapped: Iterable[str] = (),
        version: int | None = None,
        **_more: Any,
    ) -> None:
        self.quant_method: Any = METHOD
        place = "the quantization_config of this model"
        self.version = read_version("pretrained", place, version)
        stated = {"modules": modules or {}, "ties": ties or {}, "dtype": dtype, "wrapped": wrapped or []}
        check_stated(stated, Pretrained, place, AGAIN)
        self.modules, self.ties = dict(modules or {}), dict(ties or {})
        self.dtype, self.wrapped = dtype, list(wrapped or ())


def compressed_state(model: Any) -> tuple[dict[str, Tensor] | None, PolyadQuantization]:
    """The tensors of a model to write, every shared one once, and what its modules are; None where all are plain."""
    config = copy.deepcopy(model.config)
    config.__dict__.pop("quantization_config", None)
    with torch.device("meta"):
        plain: Any = type(model)(config)
    modules = differences(model, plain)
    owners, ties = split_ties(model)
    tensors = {
        name: t.detach().contiguous() for name, t in weights_before_division(model, owners).items()
    } | buffers_of(model, modules)
    expected, tied = plain.state_dict(), getattr(plain, "all_tied_weights_keys", {})
    absent = [name for name in expected if name not in tensors and name not in ties and name not in tied]
    if not modules and not absent:
        return None, PolyadQuantization()
    other = absent or [name for name, t in tensors.items() if name in expected and t.shape != expected[name].shape]
    wrapped = [] if other else [next(name for name in tensors if name in expected)]
    tensors |= {name: torch.empty(0, dtype=expected[name].dtype) for name in absent}
    tensors |= {name: tensors[name].unsqueeze(0) for name in wrapped}
    dtype = str(model.dtype).removeprefix("torch.")
    return tensors, PolyadQuantization(modules, ties, dtype, wrapped, NEWEST["pretrained"])


class Patterns(list[str]):
    """Regular expressions, to which transformers 5.0 adds a list and later ones a set."""

    def __or__(self, other: Iterable[str]) -> set[str]:
        return {*self, *other}


def names_of(model: nn.Module, config: PolyadQuantization) -> list[str]:
    """The tensors of the described modules that a folder holds, and those that are wrapped in it."""
    inside = tuple(f"{path}." for path in config.modules)
    wanted = [name for name in model.state_dict() if name.startswith(inside) and name not in config.ties]
    return list(dict.fromkeys([*wanted, *buffers_of(model, config.modules), *config.wrapped]))


def buffers_of(model: nn.Module, paths: Iterable[str]) -> dict[str, Tensor]:
    """The buffers of modules at these paths that a state dict leaves out."""
    inside = tuple(f"{path}." for path in paths)
    return {name: buffer for name, buffer in unsaved_buffers(model).items() if name.startswith(inside)}


def stored_tensors(
    files: Iterable[str], names: list[str], wrapped: list[str], paths: Iterable[str] = ()
) -> dict[str, Tensor]:
    """The tensors of these names in several files, as they are stored.

    Others in modules at ``paths`` are refused: what is described there has no place for their numbers.
    """
    tensors, unplaced = dict[str, Tensor](), list[str]()
    wanted, place, inside = set(names), None, tuple(f"{path}." for path in paths)
    for place in files:
        with safe_open(place, "pt") as opened:
            stored = set(opened.keys())
            tensors |= {name: opened.get_tensor(name) for name in wanted & stored}
            others = (name for name in stored - wanted if name.startswith(inside))
            unplaced += [name for name in others if 0 not in opened.get_slice(name).get_shape()]
    lost = sorted(wanted - tensors.keys())
    if lost and place is not None:
        raise ValueError(f"no numbers were found for {', '.join(lost[:3])} in {Path(place).parent}; copy it again")
    if unplaced and place is not None:
        raise ValueError(
            f"{Path(place).parent} holds {', '.join(sorted(unplaced)[:3])}, for which its quantization_config has no "
            "place; copy the folder again"
        )
    return {name: t.squeeze(0) if name in wrapped else t for name, t in tensors.items()}
