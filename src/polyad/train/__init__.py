"""Short trainings: a loop that goes on after a kill and hosts schedules; modules that learn to replace others."""

from polyad.train.descend import descend
from polyad.train.heal import heal
from polyad.train.schedule import Schedule

__all__ = ["Schedule", "descend", "heal"]
