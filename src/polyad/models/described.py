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
