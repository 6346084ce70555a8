"""The search for a sum of outer products: how many starts compete, and when a fit has come to its end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator

from polyad._callback import Callback


@dataclass(frozen=True)
class Search:
    """``restarts`` random starts, fits with a ``ridge``, at most ``max_iter`` sweeps until one gains ``stop``."""

    restarts: int
    ridge: float
    stop: float
    max_iter: int
    generator: Generator
    callback: Callback | None = None

    def __post_init__(self) -> None:
        if self.restarts < 1:
            raise ValueError(f"restarts={self.restarts} leaves no start; choose 1 or more")
        if not self.ridge >= 0:
            raise ValueError(f"ridge={self.ridge} is negative; choose 0, or a small number such as 1e-4")
