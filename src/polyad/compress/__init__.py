"""A trained model made smaller: recipes, plans, and one method a file."""

from polyad.compress.apply import apply
from polyad.compress.compare import compare
from polyad.compress.eora import eora
from polyad.compress.equivalent_rescaling import equivalent_rescaling
from polyad.compress.lord import lord
from polyad.compress.modegpt import modegpt
from polyad.compress.plan import Plan, plan
from polyad.compress.recipe import Step
from polyad.compress.welore import welore

__all__ = ["Plan", "Step", "apply", "compare", "eora", "equivalent_rescaling", "lord", "modegpt", "plan", "welore"]
