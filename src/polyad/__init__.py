"""polyad: low-rank and tensor structure as a first-class thing in PyTorch.

One noun, ``Format`` (a tensor stored as something smaller than itself), and many verbs that make it or use it.

>>> import polyad
>>> model = polyad.load("smollm2")  # doctest: +SKIP
>>> plan = polyad.plan(model, polyad.compress.modegpt, keep=0.8, calibrate="stdlib")  # doctest: +SKIP
>>> polyad.save(polyad.apply(model, plan), "smaller")  # doctest: +SKIP
"""

from polyad import (
    adapters,
    algorithms,
    allocate,
    attention,
    cache,
    compress,
    data,
    decompose,
    evaluation,
    export,
    formats,
    layers,
    linalg,
    models,
    optim,
    quantize,
)
from polyad._card import Card, Paper, card, method, methods
from polyad._moved import keep_old_names
from polyad.compress import Plan, apply, compare, plan
from polyad.evaluation import evaluate
from polyad.formats import Format
from polyad.interop.transformers import register
from polyad.models import load, save

keep_old_names()
register()

__version__ = "0.1.0"

__all__ = [
    "Card", "Format", "Paper", "Plan", "adapters", "algorithms", "allocate", "apply", "attention", "cache", "card",
    "compare", "compress", "data", "decompose", "evaluate", "evaluation", "export", "formats", "layers", "linalg",
    "load", "method", "methods", "models", "optim", "plan", "quantize", "save",
]  # fmt: skip
