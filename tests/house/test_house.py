"""How the packages stand to each other, and what they show."""

import ast
import doctest
import functools
import importlib
import inspect
import itertools
import pkgutil
from pathlib import Path

import pytest
import torch

import polyad
from polyad._moved import moved_modules

ROOT = Path(polyad.__file__).parent
ORDER = (
    "_calls", "_card", "_check", "_callback", "_types", "_arguments", "_folders", "_versions", "_stated", "_partial",
    "_sealed", "_sealed_json", "_trust", "_unfinished", "_figures", "_hub", "_model_card", "_after_import", "_moved",
    "linalg", "algorithms",
    "einsum", "formats", "statistics", "allocate", "decompose", "complete", "quantize", "layers", "models",
    "data", "cache", "decode", "evaluation", "train", "attention", "adapters", "compress", "export", "optim",
    "pretrain", "equivariant", "fields", "parallel", "retrieval", "generative", "inspect", "interop", "testing",
    "claims", "report", "cli",
)  # fmt: skip
NUMERIC = frozenset({"_calls", "_card", "_check", "_callback", "_versions", "linalg", "formats", "quantize"})
ONLY = {"optim": NUMERIC, "equivariant": NUMERIC}
ALSO: dict[str, set[str]] = {}
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(ROOT)], "polyad.") if not m.name.endswith("__main__"))


def imported(source, package):
    """Dotted names under polyad that a source imports, at any depth of its code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "polyad")
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], module]).rstrip(
                    "."
                )
            if module.split(".")[0] == "polyad":
                yield from (f"{module}.{alias.name}" for alias in node.names)


def misplaced(owner, names):
    """What a package imports although it does not stand above it."""
    for name in names:
        parts = name.split(".")
        other = parts[1] if len(parts) > 1 else ""
        if other == owner or other not in ORDER or name in ALSO.get(owner, ()):
            continue
        below = owner != "" and ORDER.index(other) > ORDER.index(owner) and other != "interop"
        if other == "cli" or below or (owner in ONLY and other not in ONLY[owner]):
            yield name


SOURCES = {str(p.relative_to(ROOT)): p for p in sorted(ROOT.rglob("*.py")) if p.name != "__main__.py"}


@pytest.mark.parametrize("path", SOURCES)
def test_a_package_imports_only_what_stands_above_it(path):
    parts = Path(path).with_suffix("").parts
    owner = "" if parts == ("__init__",) else parts[0]
    assert owner in ("", *ORDER), f"{owner} has no place in the order of the packages"
    package = ".".join(("polyad", *parts[:-1]))
    found = list(misplaced(owner, imported(SOURCES[path].read_text(), package)))
    assert not found, f"{path} imports {found}, which does not stand above it"


@pytest.mark.parametrize(
    ("owner", "source", "wrong"),
    [
        ("formats", "from polyad.layers import Linear", True),
        ("formats", "def f():\n    import polyad.layers.linear", True),
        ("formats", "from polyad import _check", False),
        ("formats", "from ..layers import Linear", True),
        ("layers", "from polyad.formats import Format", False),
        ("decompose", "from polyad.interop import tensorly", False),
        ("report", "from polyad.cli import main", True),
        ("", "from polyad.cli import main", True),
        ("optim", "from polyad.layers import Linear", True),
        ("optim", "from polyad.quantize import rtn", False),
        ("models", "from polyad.data.text import digest", True),
        ("models", "from polyad.data.text import stdlib", True),
        ("cli", "import torch, polyad.models", False),
    ],
)
def test_the_order_is_read_right(owner, source, wrong):
    assert bool(list(misplaced(owner, imported(source, f"polyad.{owner}")))) == wrong


@functools.cache
def described_constants():
    """Names of constants, anywhere in the sources, with a string below the line that sets them."""
    described = set()
    for file in SOURCES.values():
        for line, after in itertools.pairwise(ast.parse(file.read_text()).body):
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
            if isinstance(after, ast.Expr) and isinstance(getattr(after.value, "value", None), str):
                described |= {target.id for target in targets if isinstance(target, ast.Name)}
    return described


def undocumented(module):
    """Names of a module's ``__all__`` that say nothing of themselves; a constant is described below its line."""
    described = described_constants()
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
            text = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
            if not text or text.startswith(f"{name}("):  # what dataclass writes by itself
                yield name
        elif name not in described:
            yield name


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented_and_examples_run(name):
    module = importlib.import_module(name)
    assert list(undocumented(module)) == []
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.failed == 0, f"{result.failed} examples of {name} fail"


def test_modules_of_the_first_version_are_found_where_they_are_now():
    for old, new in moved_modules().items():
        before, now = importlib.import_module(old), importlib.import_module(new)
        public = [name for name, value in vars(now).items() if getattr(value, "__module__", None) == new]
        for name in public:
            if name.startswith("_") or vars(before).get(name) is getattr(now, name):
                continue
            with pytest.warns(DeprecationWarning, match=f"{new}.{name} now"):
                assert getattr(before, name) is getattr(now, name)
    with pytest.raises(AttributeError, match=r"'polyad.adapters.lora' has moved to 'polyad.adapters.methods.lora'"):
        _ = polyad.adapters.lora.nothing
    with pytest.warns(DeprecationWarning, match="polyad.algorithms.lasso now"):
        assert polyad.linalg.lasso is polyad.algorithms.lasso
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = polyad.linalg.nothing
    with pytest.warns(DeprecationWarning, match="polyad.attention.mix_latent now"):
        assert polyad.attention.mixed is polyad.attention.mix_latent
    with pytest.warns(DeprecationWarning, match="compare_formats.compare_formats now"):
        assert importlib.import_module("polyad.decompose.trade").trade.__name__ == "compare_formats"
