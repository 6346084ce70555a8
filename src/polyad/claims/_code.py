"""Which code a claim tests, and the sha256 of it: what a kept result goes stale by."""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import tokenize
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
"""The folder of the package."""
WORDS = frozenset(f"polyad.{name}" for name in ("_card", "_check", "_folders", "claims", "claims._result"))
"""Modules that compute no figure: names, papers, refusals, places on disk, and how results are kept."""


def code(module: ModuleType) -> str:
    """The sha256 of a claim and of every module of polyad that it uses, through whatever lies between.

    A name that a package hands on is followed to the module that defines it, so that a claim about one decomposition
    does not go stale with another. Comments, docstrings and empty lines are left out: they change no figure. Nothing
    is imported, so the answer is the same on every machine. Cost: some milliseconds a module, once.
    """
    return _of(reached(module.__name__))


def code_below(file: Path) -> str:
    """The sha256 of a Python file outside the package, and of every module of polyad that it uses."""
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    homes = {home for module, name in _imported(tree) for home in _homes(module, name)}
    return hashlib.sha256(f"{meaning(text, tree)}\n{_of(set().union(*map(reached, homes)))}".encode()).hexdigest()


def _of(names: set[str]) -> str:
    total = hashlib.sha256()
    for name in sorted(names):
        total.update(f"{name} {_digest(name)}\n".encode())
    return total.hexdigest()


def reached(name: str) -> set[str]:
    """The modules that a module of polyad uses, itself included."""
    found: set[str] = set()
    pending = [name]
    while pending:
        here = pending.pop()
        if here not in found and here not in WORDS:
            found.add(here)
            pending += _used(here)
    return found


@functools.cache
def _used(name: str) -> tuple[str, ...]:
    return tuple({home for module, attribute in _imports(name) for home in _homes(module, attribute)})


@functools.cache
def _imports(name: str) -> tuple[tuple[str, str], ...]:
    """What a module imports of polyad, also inside its functions: (module, name in it)."""
    return _imported(_tree(name))


def _imported(tree: ast.Module) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and _ours(node.module or ""):
            found += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "*") for alias in node.names if _ours(alias.name) and alias.name != "polyad"]
    return tuple(found)


def _homes(module: str, attribute: str) -> set[str]:
    """The modules in which what ``from module import attribute`` gives is defined."""
    inner = f"{module}.{attribute}"
    if attribute != "*" and _path(inner) is not None:
        module, attribute = inner, "*"
    path = _path(module)
    if path is None or path.name != "__init__.py":
        return {module} if path is not None else set()
    handed = [(m, a) for m, a in _imports(module) if attribute in ("*", a)]
    return set().union(*(_homes(m, a) for m, a in handed)) if handed else {module}


def _ours(name: str) -> bool:
    return name.partition(".")[0] == "polyad"


def _path(name: str) -> Path | None:
    """The file of a module of polyad; None where no module is called so."""
    inside = ROOT.joinpath(*name.split(".")[1:])
    for path in (inside.with_suffix(".py"), inside / "__init__.py"):
        if path.is_file():
            return path
    return None


@functools.cache
def _source(name: str) -> str:
    path = _path(name)
    return "" if path is None else path.read_text(encoding="utf-8")


@functools.cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_source(name))


@functools.cache
def _digest(name: str) -> str:
    return hashlib.sha256(meaning(_source(name), _tree(name)).encode()).hexdigest()


def meaning(source: str, tree: ast.Module | None = None) -> str:
    """A source without its comments, docstrings and empty lines; ``tree`` is the source parsed, if that is known."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree or ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for row in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())
