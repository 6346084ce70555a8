"""The state of an optimiser: its bytes, and what a file holds of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad.formats import Format


def state_bytes(value: Any) -> int:
    """Bytes of all tensors in a state, those inside formats and dictionaries included; plain numbers count none."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    parts = value.tensors() if isinstance(value, Format) else value
    return sum(map(state_bytes, parts.values())) if isinstance(parts, dict) else 0


def pack_state(value: Any) -> Any:
    """A state with its formats taken apart into their description and tensors."""
    if isinstance(value, Format):
        return {"spec": value.spec(), "tensors": value.tensors()}
    return {key: pack_state(part) for key, part in value.items()} if isinstance(value, dict) else value


def unpack_state(value: Any, device: torch.device) -> Any:
    """The inverse of ``pack_state``: copies of the tensors on a device, in the dtype that they have."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if not isinstance(value, dict):
        return value
    if value.keys() == {"spec", "tensors"}:
        tensors = {name: tensor.to(device, copy=True) for name, tensor in value["tensors"].items()}
        return Format.from_spec(value["spec"]).replace(tensors)
    return {key: unpack_state(part, device) for key, part in value.items()}


def refuse_other_state(name: str, stored: dict[str, Any], fresh: dict[str, Any]) -> None:
    """Refuse the state of another rule, or of a parameter of another shape, than the one that is made for it.

    What a rule makes at its first steps (a basis, codes) is None before, and counts as any.
    """
    missing = [key for key in fresh if key not in stored and key != "phase"]
    other = [key for key in stored if key not in fresh]
    if missing or other:
        raise ValueError(
            f"the state of {name} holds {', '.join(sorted(map(str, stored))) or 'nothing'}, and this optimizer keeps "
            f"{', '.join(sorted(fresh)) or 'nothing'} for it; load it into one with the same transform"
        )
    for key, value in fresh.items():
        if isinstance(value, Tensor) and isinstance(stored.get(key), Tensor) and stored[key].shape != value.shape:
            raise ValueError(
                f"{key} of {name} has shape {tuple(stored[key].shape)} in this state and {tuple(value.shape)} here; "
                "load it into an optimizer of the same parameters, in the same order"
            )
