"""Modules whose forward pass is not the architecture's, by the name under which a folder describes them."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from torch import nn


class Described(Protocol):
    """What a module must say of itself, to be saved in the place of one of the architecture's."""

    def spec(self) -> dict[str, Any]:
        """JSON with the class's name under ``layer``."""
        ...

    @classmethod
    def from_spec(cls, spec: dict[str, Any], before: nn.Module) -> nn.Module:
        """The module without its numbers, in place of ``before``."""
        ...


KINDS: dict[str, Any] = {}
"""Every class that ``described`` has recorded."""
_Kind = TypeVar("_Kind", bound=type[Described])


def described(kind: _Kind) -> _Kind:
    """Let folders hold modules of this class."""
    KINDS[kind.__name__] = kind
    return kind
