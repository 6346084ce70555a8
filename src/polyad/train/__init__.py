"""Short trainings: a loop that goes on after a kill, and modules that learn to stand in for others."""

from polyad.train.descend import descend
from polyad.train.heal import heal

__all__ = ["descend", "heal"]
