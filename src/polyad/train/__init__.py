"""Short trainings: a resumable loop that hosts schedules, and the training of modules that replace others."""

from polyad.train.descend import descend
from polyad.train.heal import heal
from polyad.train.schedule import Schedule

__all__ = ["Schedule", "descend", "heal"]
