"""A decoder written as a GGUF file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from polyad._partial import whole_file
from polyad.export.gguf.architectures import architecture_of
from polyad.export.gguf.check import check_file, refuse_without_engine
from polyad.export.gguf.choice import container_rules
from polyad.export.gguf.contents import Contents, contents, lora_alpha
from polyad.export.result import ExportResult
from polyad.interop.gguf_files import write_file
from polyad.models.folder import check_free, check_room


def write_gguf(
    model: nn.Module, out: Path, *, container: str | Mapping[str, str] | None = None, unchecked: bool = False
) -> ExportResult:
    """Write a decoder, its tokenizer and its chat template to a GGUF file, and run it before it is put in its place.

    Codes of 2 to 8 bits stay what they are wherever a container of GGUF has a place for them. ``container`` holds
    the other matrices (F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, IQ4_NL); by default one that
    holds their numbers as they are. It may differ by layer: ``{"": "Q4_K", "*down_proj": "Q6_K"}``, or the same as
    ``"Q4_K,*down_proj=Q6_K"``. Those of K need rows of multiples of 256; other rows have Q4_1, Q5_1 or Q8_0.
    Low-rank corrections of quantised layers go into a LoRA file beside ``out``. With ``unchecked`` no engine is
    needed, and the result says that none was asked.
    """
    rules = container_rules(container)
    if not unchecked:
        refuse_without_engine()
    architecture = architecture_of(model)
    whole = contents(model, architecture, rules)
    beside = out.with_name(f"{out.name.removesuffix('.gguf')}.lora.gguf") if whole.lora else None
    if beside is not None:
        check_free(beside)
    out.parent.mkdir(parents=True, exist_ok=True)
    check_room(out.parent, whole.nbytes)
    with contextlib.ExitStack() as places:
        file = places.enter_context(whole_file(out, replace=False))
        write_file(file, whole.architecture, whole.keys, whole.tensors)
        lora = None
        if beside is not None:
            lora = places.enter_context(whole_file(beside, replace=False))
            write_file(lora, whole.architecture, lora_keys(whole), whole.lora)
        checked = {} if unchecked else check_file(model, whole, file, lora)
        size = file.stat().st_size + (lora.stat().st_size if lora is not None else 0)
    notes = [*whole.notes]
    if beside is not None:
        notes.append(
            f"low-rank corrections of {len(whole.lora) // 2} matrices are in {beside.name}: give both to llama.cpp"
        )
    if unchecked:
        notes.append("the file was not run: no engine was asked whether it says what the model says")
    return ExportResult(out, "gguf", size, checked, tuple(notes), () if beside is None else (beside,))


def lora_keys(whole: Contents) -> dict[str, Any]:
    """The keys of the LoRA file."""
    return {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": float(lora_alpha(whole.encoded))}
