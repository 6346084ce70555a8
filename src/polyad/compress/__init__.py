"""A trained model made smaller: recipes, plans, and one method a file."""

from polyad.compress.apply import apply
from polyad.compress.compare import compare
from polyad.compress.methods.eora import eora
from polyad.compress.methods.equivalent_rescaling import equivalent_rescaling
from polyad.compress.methods.lord import lord
from polyad.compress.methods.modegpt import modegpt
from polyad.compress.methods.welore import welore
from polyad.compress.plan import Plan, plan
from polyad.compress.recipe import Step

__all__ = ["Plan", "Step", "apply", "compare", "eora", "equivalent_rescaling", "lord", "modegpt", "plan", "welore"]
