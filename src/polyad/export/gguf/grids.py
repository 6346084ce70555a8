"""Recipes that stay within what GGUF holds: grids, groups and scales of its containers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from polyad.compress.recipe import ADDS, Step
from polyad.export.gguf.containers import BLOCK
from polyad.export.gguf.superblocks import ARGUMENTS, IQ4_NL, TABLE, WIDE

BITS = (2, 3, 4, 5, 6, 8)


def fit_steps(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps of a recipe with codes that the containers of GGUF hold as they are.

    Quantisers get groups of 32 and scales of float16 where the recipe leaves them open, so that scales are rounded
    before codes are chosen; zero points of float16, as many bytes as in the file; and eight
    bits no zero point. A recipe whose result has no place in a file is refused.
    """
    fitted = tuple(_fit(step) if step.kind == "quantize" else step for step in steps)
    if not any(step.kind == "quantize" for step in fitted):
        for step in fitted:
            if step.kind in ADDS:
                raise ValueError(
                    f"{step.card.name} alone is no layer that a GGUF file holds: it would be multiplied out there; "
                    "quantise first, such as rtn:bits=4 and then eora, whose factors become a LoRA file"
                )
    return fitted


def _fit(step: Step) -> Step:
    """A quantiser's step, with the arguments of a container where none are given."""
    takes = inspect.signature(step.card.function).parameters
    arguments = dict(step.arguments)
    fixed = _of_table(step) if "levels" in takes else _of_superblocks(step) if "step_bits" in takes else {}
    for name, value in fixed.items():
        if arguments.setdefault(name, value) != value:
            raise ValueError(f"{name}={arguments[name]} does not fit GGUF for {step.card.name}: it is {value} there")
    bits, group = step.size, arguments.get("group")
    if bits is not None and bits not in BITS:
        raise ValueError(f"bits={bits} has no container in GGUF; choose one of {', '.join(map(str, BITS))}")
    if group is not None and (not isinstance(group, int) or group % BLOCK):
        raise ValueError(
            f"group={group} does not fit GGUF, whose blocks are {BLOCK} numbers of a row; give a multiple"
        )
    if bits == 8 and "symmetric" in takes and not arguments.setdefault("symmetric", True):
        raise ValueError("8 bits have no zero points in GGUF (Q8_0); leave symmetric=false out")
    usual = {"group": BLOCK, "scale_dtype": torch.float16, "zero_dtype": torch.float16}
    for name, value in usual.items():
        if name in takes and not (name == "zero_dtype" and arguments.get("symmetric")):
            arguments.setdefault(name, value)
    return replace(step, arguments=arguments)


def _of_superblocks(step: Step) -> dict[str, Any]:
    """The groups of a container of 256 numbers; rows that are no multiples have blocks of 32 with float16 scales."""
    if step.size is not None and step.size not in (2, 3, 4, 5, 6):
        raise ValueError(f"bits={step.size} of {step.card.name} has no container in GGUF; choose 2 to 6, or rtn")
    kind = "Q6_K" if step.size == 6 or step.arguments.get("symmetric") else "Q5_K" if step.size == 5 else "Q4_K"
    return {"group": WIDE, **{name: value for name, value in ARGUMENTS[kind].items() if name != "bits"}}


def _of_table(step: Step) -> dict[str, Any]:
    """The table of the container that has one."""
    if step.size not in (None, 4):
        raise ValueError(f"bits={step.size} of {step.card.name} has no container in GGUF; choose 4 ({TABLE})")
    return {"levels": IQ4_NL}
