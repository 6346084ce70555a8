"""The interface of what takes in data piece by piece and can be saved in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


class Stream:
    """Reads data once, in pieces of any size, and keeps a state from which it goes on.

    The state is every attribute that is a tensor or a plain number, those of dataclasses among the attributes too.
    So a method of this kind keeps what it knows in attributes, each there from the beginning, and nothing else.

    >>> import torch
    >>> class Mean(Stream):
    ...     def __init__(self) -> None:
    ...         self.total, self.count = torch.zeros(()), 0
    ...
    ...     def update(self, x: Tensor) -> None:
    ...         self.total, self.count = self.total + x.sum(), self.count + len(x)
    >>> one, other = Mean(), Mean()
    >>> one.update(torch.ones(3))
    >>> other.load_state_dict(one.state_dict())
    >>> float(other.total), other.count
    (3.0, 3)
    """

    def state_dict(self) -> dict[str, Tensor | int | float | bool]:
        """A copy of all tensors and numbers by name, which ``torch.load(weights_only=True)`` reads."""
        return {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, _, _, value in _parts(self, "")
        }

    def load_state_dict(self, state: Mapping[str, Tensor | int | float | bool]) -> None:
        """Go on from a saved state, in a stream that was made with the same arguments."""
        parts = list(_parts(self, ""))
        other = sorted(state.keys() ^ {name for name, *_ in parts})
        if other:
            raise ValueError(
                f"state is not of a {type(self).__name__}: {', '.join(other[:3])} is in one of them alone"
            )
        for name, _, _, value in parts:
            saved = state[name]
            if type(saved) is not type(value) or (isinstance(saved, Tensor) and not _alike(saved, value)):
                raise ValueError(
                    f"state has {_words(saved)} at {name} where this {type(self).__name__} has {_words(value)}; make "
                    "it with the arguments that the saved one was made with"
                )
        for name, owner, attribute, _ in parts:
            saved = state[name]
            setattr(owner, attribute, saved.clone() if isinstance(saved, Tensor) else saved)


def _parts(owner: Any, prefix: str) -> Iterator[tuple[str, Any, str, Any]]:
    """Full name, owner, attribute and value of every tensor and number that is kept."""
    for attribute, value in sorted(vars(owner).items()):
        if isinstance(value, Tensor | int | float):
            yield prefix + attribute, owner, attribute, value
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _parts(value, f"{prefix}{attribute}.")


def _alike(saved: Tensor, own: Any) -> bool:
    return saved.dtype == own.dtype and saved.ndim == own.ndim


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.ndim} dimensions and {value.dtype}"
    return f"the {type(value).__name__} {value}"
