"""Modules whose forward pass is not the architecture's, by the name under which a folder describes them."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from torch import nn


class Described(Protocol):
    """A module that can be saved in the place of one of the architecture's, since it describes itself."""

    def spec(self) -> dict[str, Any]:
        """JSON with the class's name under ``layer``."""
        ...

    @classmethod
    def from_spec(cls, spec: dict[str, Any], before: nn.Module) -> nn.Module:
        """The module without its numbers, in place of ``before``."""
        ...


KINDS: dict[str, Any] = {}
"""Every class that ``register_kind`` has recorded."""
_Kind = TypeVar("_Kind", bound=type[Described])


def register_kind(kind: _Kind) -> _Kind:
    """Register a class of modules, so that folders can hold them; a class decorator."""
    KINDS[kind.__name__] = kind
    return kind


def refuse_unsaveable(model: nn.Module) -> None:
    """Refuse a model with a module that a folder cannot hold, which says so itself by ``reason_not_to_save``."""
    for path, module in model.named_modules():
        reason = getattr(type(module), "reason_not_to_save", None)
        if reason is not None:
            raise ValueError(f"{path or 'the model'} {reason.__get__(module)}")
