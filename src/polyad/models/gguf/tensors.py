"""Tensors of a GGUF file that the model has no place for, or that the model lacks: refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from polyad.models.gguf.header import Header

HARMLESS = re.compile(r"^rope_(freqs|factors_(long|short))\.weight$|\.attn_rot_embd\.weight$")
"""Used beforehand (``gguf_keys.take_rotation``), or tables that follow from the configuration."""

APART = re.compile(r"\.ffn_(gate|up|down|gate_up)_(exps|projs)\.weight$")
"""Experts, which transformers' reader takes by rules of its own; one that is missing it reports."""


def refuse_unused(model: Any, header: Header, notes: Mapping[str, Any]) -> None:
    """Refuse a file of which a tensor found no place in the model, or which leaves a tensor of the model random."""
    missing = sorted(notes["missing_keys"])
    unused = [name for name in header.tensors if not HARMLESS.search(name)]
    places = _places(model, header)
    unused = [n for n in unused if n not in places and not (APART.search(n) and n.removesuffix(".weight") in places)]
    if missing:
        stray = f", and has {_list(unused)}, which the model does not take" if unused else ""
        raise ValueError(
            f"{header.path} holds no numbers for {_list(missing)}{stray}; the file is not whole: get it again"
        )
    for name, stored, expected in sorted(notes.get("mismatched_keys") or [], key=str)[:1]:
        raise ValueError(
            f"{header.path} holds {name} of shape {tuple(stored)}, and its keys describe a model that has "
            f"{tuple(expected)} there; give a folder of safetensors instead"
        )
    if unused:
        raise ValueError(
            f"{header.path} holds {_list(unused)}, which transformers' model for {header.architecture} has no place "
            "for, so that it would compute something else; give a folder of safetensors instead"
        )


def _places(model: Any, header: Header) -> set[str]:
    """The names that transformers' reader looks for in a file of this model."""
    from transformers import modeling_gguf_pytorch_utils as reader

    processor = reader.TENSOR_PROCESSORS.get(header.architecture, reader.TensorProcessor)(
        config=model.config.to_dict()
    )
    names = set(reader.get_gguf_hf_weights_map(WithoutLayers(model), processor))
    return names | {"output.weight"} if model.get_output_embeddings() is not None else names


class WithoutLayers:
    """A module as the reader looks at it, less what stands inside of numbered layers.

    The reader makes the table of all names anew for every module inside, half a minute for a model of 46 layers, and
    the names inside of one layer are in none.
    """

    def __init__(self, module: Any) -> None:
        self.module, self.config = module, getattr(module, "config", None)

    def state_dict(self) -> Mapping[str, Any]:
        return self.module.state_dict()

    def named_children(self) -> list[tuple[str, WithoutLayers]]:
        return [(name, WithoutLayers(child)) for name, child in self.module.named_children() if not name.isdigit()]


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
