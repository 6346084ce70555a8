"""Removes from a syntax tree what computes nothing."""

from __future__ import annotations

import ast
from collections.abc import Mapping

COMPUTES = frozenset({"makes", "needs", "curve", "allocate"})
"""Arguments of ``@method`` that change what is computed; the others say what it is called and where it comes from."""


class WordStripper(ast.NodeTransformer):
    """Removes docstrings, imports, annotations, the sentences of errors and the words of a method's card.

    ``origins`` maps names bound by imports to dotted paths. The annotations of a class's fields, of parameters and of
    results stay in the tree, since a field may have nothing else; whoever writes the tree out leaves them out.
    """

    def __init__(self, origins: Mapping[str, str]) -> None:
        self._origins = origins
        self._fields: set[ast.AST] = set()

    # nothing is left of these

    def visit_Import(self, node: ast.Import) -> None: ...
    def visit_ImportFrom(self, node: ast.ImportFrom) -> None: ...
    def visit_Pass(self, node: ast.Pass) -> None: ...
    def visit_TypeAlias(self, node: ast.AST) -> None: ...

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        asked = node.test
        typing = isinstance(asked, ast.Name) and asked.id == "TYPE_CHECKING"
        return None if typing else self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._fields.update(part for part in node.body if isinstance(part, ast.AnnAssign))
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        if node in self._fields:
            return node
        return None if node.value is None else ast.Assign([node.target], node.value)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(kind, None)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return self.generic_visit(ast.Assert(node.test, None))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and self._origins.get(node.func.id) in (
            "polyad._card.method",
            "polyad.method",
        ):
            node = ast.Call(node.func, [], [word for word in node.keywords if word.arg in COMPUTES])
        return self.generic_visit(node)
