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

    rank: int

    def refresh(self, g: Tensor, basis: Any = None) -> Any:
        """The basis from here on, given a gradient (n, m) and the basis so far, None at first."""
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
