"""Short trainings: a loop that can be resumed, and the training of modules that replace others."""

from polyad.train.descend import descend
from polyad.train.heal import heal

__all__ = ["descend", "heal"]
