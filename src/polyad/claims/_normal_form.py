"""A statement written out so that only what it computes is left, and alike wherever it stands.

Names that only the inside of a function sees are numbered. Names of modules of the package are dropped, so that
``roots.inverse(x)`` and ``inverse(x)`` read alike wherever ``inverse`` lives. The text is the same in every Python.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LEFT_OUT = frozenset({"annotation", "returns", "type_comment", "type_params", "ctx", "kind", "simple"})
BINDING = frozenset({(ast.ExceptHandler, "name"), (ast.MatchAs, "name"), (ast.MatchStar, "name"),
                     (ast.MatchMapping, "rest"), (ast.arg, "arg")})  # fmt: skip
"""Where a name that is bound stands as a string."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class NormalForm:
    """The ``text`` of a statement, and the global names it ``uses``, each with the module it is imported from.

    ``origins`` maps names bound by imports to dotted paths; ``is_module`` tells which of these are modules of the
    package.
    """

    def __init__(self, statement: ast.stmt, origins: Mapping[str, str], is_module: Callable[[str], bool]) -> None:
        self._origins, self._is_module = origins, is_module
        self._scopes: list[dict[str, str] | None] = []  # of a function: the names it binds; of a class: None
        self._count = 0
        self.uses: set[tuple[str, str]] = set()
        self.text = self._write(statement)

    def _write(self, node: ast.AST) -> str:
        """The text of a node; empty where nothing is to be said."""
        match node:
            case ast.Name():
                return f"Name({self._name(node.id)})"
            case ast.Attribute() if (module := self._module(node.value)) is not None:
                self.uses.add((module, node.attr))
                return f"Name({node.attr})"
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                return self._function(node)
            case ast.ClassDef():
                return self._class(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                return self._comprehension(node)
            case ast.Global() | ast.Nonlocal():
                return ""
        return self._fields(node)

    def _fields(self, node: ast.AST, *leave_out: str) -> str:
        texts: list[str] = []
        for name, value in ast.iter_fields(node):
            if value is None or value == [] or name in LEFT_OUT or name in leave_out:
                continue
            text = self._name(value) if (type(node), name) in BINDING else self._value(value)
            texts.append(f"{name}={text}")
        return f"{type(node).__name__}({', '.join(texts)})"

    def _value(self, value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(text for item in value if (text := self._value(item)))}]"
        return self._write(value) if isinstance(value, ast.AST) else f"{type(value).__name__} {value!r}"

    def _name(self, name: str) -> str:
        """A local name's number; a global name as the module that defines it calls it."""
        for scope in reversed(self._scopes):
            if scope is not None and name in scope:
                if not scope[name]:
                    self._count += 1
                    scope[name] = f"local {self._count}"
                return scope[name]
        module, _, last = self._origins.get(name, name).rpartition(".")
        self.uses.add((module, last))
        return last

    def _module(self, node: ast.expr) -> str | None:
        """The path of the module of the package that an expression names; None where it names something else."""
        path = None
        if isinstance(node, ast.Name) and not any(scope and node.id in scope for scope in self._scopes):
            path = self._origins.get(node.id)
        elif isinstance(node, ast.Attribute) and (outer := self._module(node.value)):
            path = f"{outer}.{node.attr}"
        return path if path is not None and self._is_module(path) else None

    @property
    def _inside(self) -> bool:
        """Tell whether a function is around."""
        return any(scope is not None for scope in self._scopes)

    def _function(self, node: Function | ast.Lambda) -> str:
        """Parameters keep their names where somebody outside may call by them."""
        called = "" if isinstance(node, ast.Lambda) else self._name(node.name) if self._inside else node.name
        outside = [
            self._value(getattr(node, "decorator_list", [])),
            self._value(node.args.defaults),
            self._value(node.args.kw_defaults),
        ]
        scope = {} if isinstance(node, ast.Lambda) else dict.fromkeys(bound_names(node.body), "")
        hidden = self._inside or isinstance(node, ast.Lambda)
        scope |= {part.arg: "" if hidden else part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        self._scopes.append(scope)
        inside = [self._fields(node.args, "defaults", "kw_defaults"), self._value(node.body)]
        self._scopes.pop()
        return f"{type(node).__name__}({called}; {'; '.join(outside + inside)})"

    def _class(self, node: ast.ClassDef) -> str:
        called = self._name(node.name) if self._inside else node.name
        outside = [self._value(part) for part in (node.decorator_list, node.bases, node.keywords)]
        self._scopes.append(None)
        body = self._value(node.body)
        self._scopes.pop()
        return f"ClassDef({called}; {'; '.join(outside)}; {body})"

    def _comprehension(self, node: Comprehension) -> str:
        first = self._write(node.generators[0].iter)  # evaluated outside
        self._scopes.append(dict.fromkeys(bound_names([part.target for part in node.generators]), ""))
        parts = [self._fields(part, *(() if i else ("iter",))) for i, part in enumerate(node.generators)]
        parts += [self._fields(node, "generators")]
        self._scopes.pop()
        return f"({first}; {'; '.join(parts)})"


def bound_names(nodes: list[Any]) -> set[str]:
    """The names that these statements or targets bind in their own scope, imports aside."""
    bound, outer = set[str](), set[str]()
    for node in (part for whole in nodes for part in _same_scope(whole)):
        match node:
            case ast.Name(ctx=ast.Store() | ast.Del()):
                bound.add(node.id)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound.add(node.name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case ast.Global() | ast.Nonlocal():
                outer.update(node.names)
    return bound - outer


def _same_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement, without the inside of functions, classes and comprehensions in it."""
    yield node
    if isinstance(node, Comprehension):
        yield from (part.target for part in ast.walk(node) if isinstance(part, ast.NamedExpr))
    elif not isinstance(node, Function | ast.ClassDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _same_scope(child)
