"""polyad: low-rank and tensor structure as a first-class thing in PyTorch.

One noun, ``Format`` (a tensor stored as something smaller than itself), and many verbs that make it or use it.

>>> import polyad
>>> model = polyad.load("smollm2")  # doctest: +SKIP
>>> plan = polyad.plan(model, polyad.compress.modegpt, keep=0.8, calibrate="stdlib")  # doctest: +SKIP
>>> polyad.save(polyad.apply(model, plan), "smaller")  # doctest: +SKIP

Importing it loads neither torch nor transformers: each part is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from polyad._after_import import after_import
from polyad._card import Card, Paper, card, method, methods
from polyad._moved import keep_old_names

if TYPE_CHECKING:
    from polyad import (
        adapters,
        algorithms,
        allocate,
        attention,
        cache,
        compress,
        data,
        decode,
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
    from polyad.compress import Plan, apply, compare, plan
    from polyad.decode import generate
    from polyad.evaluation import evaluate
    from polyad.formats import Format
    from polyad.models import load, save

PLACES = {
    "Format": "formats", "Plan": "compress", "apply": "compress", "compare": "compress", "evaluate": "evaluation",
    "generate": "decode", "load": "models", "plan": "compress", "save": "models",
}  # fmt: skip
"""Names that the package shows, and the part that each comes from; every other name is a part."""

__version__ = "0.1.0"

__all__ = [
    "Card", "Format", "Paper", "Plan", "adapters", "algorithms", "allocate", "apply", "attention", "cache", "card",
    "compare", "compress", "data", "decode", "decompose", "evaluate", "evaluation", "export", "formats", "generate",
    "layers", "linalg", "load", "method", "methods", "models", "optim", "plan", "quantize", "save",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in PLACES:
        value = getattr(import_module(f"polyad.{PLACES[name]}"), name)
    elif name in __all__:
        value = import_module(f"polyad.{name}")
    else:
        raise AttributeError(f"module 'polyad' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    from polyad.interop.transformers import register

    register()


keep_old_names()
after_import("transformers.modeling_utils", _register)
