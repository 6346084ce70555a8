"""Every sentence that the package can say, of errors, warnings and the command line, in one file to read in review.

python tests/house/messages.py

writes ``messages.txt`` beside it. Fields of a sentence stand as ``{…}``, and no line numbers: code that moves within
its file changes nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "polyad"
FILE = Path(__file__).with_name("messages.txt")
SAYING = {"print", "warn", "complain", "note", "say", "echo"}
"""Functions that say their first argument to a person."""
SILENT = ("claims/", "testing/", "_moved.py")
"""Rooms whose other texts are statements of papers, names, or said to who writes a method."""
WORDS = 4
"""Other texts of so many words are taken for sentences, or parts of some: reasons, helps, notes."""


def text_of(node: ast.expr) -> str:
    """The words of an expression, with fields for what is known only when it is said."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "{…}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    if isinstance(node, ast.IfExp):
        return " | ".join(dict.fromkeys((text_of(node.body), text_of(node.orelse))))
    return "{…}"


def sentences(tree: ast.Module, others: bool = True) -> Iterator[tuple[str, str]]:
    """What says a sentence (the class of an error, the name of a function, or ``text``), and its words."""
    said = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}  # docstrings
    for one in ast.walk(tree):
        if isinstance(one, ast.Call) and getattr(one.func, "id", "") == "Paper":
            said |= {id(argument) for argument in one.args}  # authors and titles
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if not (isinstance(node, ast.Raise) and name[:1].isupper()) and name not in SAYING:
            continue
        words = max((_on_one_line(argument) for argument in call.args), key=len)
        if words.replace("{…}", "").strip(" |.,:;()"):
            said |= {id(part) for argument in call.args for part in ast.walk(argument)}
            yield name, words
    for node in ast.walk(tree) if others else ():
        if id(node) not in said and isinstance(node, ast.JoinedStr | ast.Constant):
            said |= {id(part) for part in ast.walk(node)}
            words = _on_one_line(node)
            if len(words.split()) >= WORDS and words[:1] != "<":  # no markup
                yield "text", words


def _on_one_line(node: ast.expr) -> str:
    return " ".join(text_of(node).split())


def messages() -> dict[str, list[tuple[str, str]]]:
    """The sentences of every module by its path, sorted."""
    listed: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said = sorted(set(sentences(tree, not name.startswith(SILENT))))
        if said:
            listed[name] = said
    return listed


def as_text() -> str:
    """The file's text."""
    parts = [
        f"{path}\n" + "".join(f"    {name}: {words}\n" for name, words in said) for path, said in messages().items()
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    FILE.write_text(as_text(), encoding="utf-8")
