"""Short trainings: a loop that goes on after a kill, and modules that learn to stand in for others."""

from polyad.train.descending import descend
from polyad.train.healing import heal

__all__ = ["descend", "heal"]
