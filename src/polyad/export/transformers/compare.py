"""A written folder, loaded by transformers alone, beside its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad.export.copies import copy_in_dtype
from polyad.interop.compressed_tensors import load_plainly, run_plainly
from polyad.models.small_inputs import small_inputs

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""The relative difference by which outputs of the two may depart from each other, by dtype."""


@torch.no_grad()
def compare_folder(model: nn.Module, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Load the folder without polyad's own reader and compare the outputs; raise ValueError where they differ."""
    loaded, absent, extra = load_plainly(type(model), folder, dtype)
    if absent or extra:
        words = [f"{n} is {what}" for names, what in ((absent, "missing"), (extra, "not expected")) for n in names]
        raise ValueError(
            f"transformers does not read the folder as it was written: {'; '.join(words[:4])}; nothing was written"
        )
    reference = copy_in_dtype(model, dtype)
    worst, place, runs = 0.0, "", 0
    for attempt in small_inputs(model):
        for rows in (1, 2):
            inputs = {name: _some_rows(value, rows) for name, value in attempt.items()}
            try:
                ours: Any = reference(**inputs, return_dict=True)
            except Exception:  # inputs that are not for this model
                break
            theirs = run_plainly(loaded, inputs)
            runs += 1
            for name, value in ours.items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    apart = _relative(value, theirs[name])
                    if not apart <= worst:
                        worst, place = apart, name
    if runs == 0 or not worst <= TOLERANCE[dtype]:
        said = f"{place} differs by {worst:.2g} of its size" if runs else "it runs on none of the inputs tried"
        raise ValueError(f"the folder was loaded with transformers, and {said}; nothing was written")
    return {"engine": "transformers", "runs": runs, "largest_relative_difference": worst}


def _some_rows(value: Any, rows: int) -> Any:
    return torch.cat([value, value])[:rows] if isinstance(value, Tensor) and value.ndim > 0 else value


def _relative(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours.double() - theirs.double()).norm() / ours.double().norm().clamp_min(1e-30))
