"""The interface of subspaces: fewer coordinates for the gradient of a matrix."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from polyad.optim.transform import State


class Subspace(Protocol):
    """Chooses ``rank`` coordinates along the shorter side of a matrix gradient (n, m), n ≤ m, and goes to and fro.

    It keeps nothing itself: a basis is handed from call to call, and is what an optimiser's state may hold: a tensor,
    a plain number (such as a seed), or a dictionary of these.
    """

    @property
    def rank(self) -> int:
        """The number of coordinates."""
        ...

    def refresh(self, g: Tensor, basis: Any = None, mean: Tensor | None = None) -> Any:
        """The basis from here on, given a gradient (n, m), the basis so far, None at first, and the first moment
        (rank, m) in it, None where there is none. The basis that was given is left as it is."""
        ...

    def down(self, g: Tensor, basis: Any) -> Tensor:
        """The coordinates (rank, m) of a gradient (n, m); linear in it."""
        ...

    def up(self, y: Tensor, basis: Any) -> Tensor:
        """The matrix (n, m) of coordinates (rank, m); the transpose of ``down``."""
        ...

    def transport(self, state: State, old: Any, new: Any) -> State:
        """The moments ``mean`` and ``square``, (rank, m) each, of one basis in the coordinates of another."""
        ...


def carry_moments(state: State, turn: Tensor) -> State:
    """The moments in coordinates that are ``turn`` (new rank, old rank) times the old ones.

    ``m ← C m`` and ``v ← C² (v - m²)₊ + (C m)²``, squares taken entry by entry: the variance of independent
    coordinates, and the square of their mean.

    >>> import torch
    >>> carry_moments({"mean": torch.ones(1, 2), "square": torch.full((1, 2), 3.0)}, torch.tensor([[2.0]]))["square"]
    tensor([[12., 12.]])
    """
    mean = turn @ state["mean"]
    carried = {"mean": mean}
    if "square" in state:
        spread = (state["square"] - state["mean"].square()).clamp_(min=0)
        carried["square"] = (turn.square() @ spread).addcmul_(mean, mean)
    return carried
