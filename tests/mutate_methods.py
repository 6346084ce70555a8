"""Change methods a line at a time and see whether their tests notice: ``python tests/mutate_methods.py adapters``.

Every mutant is one change of one line (a sign, a transpose, a term left out, a rank or bound off by one, an order
turned round). The examples and tests of the method, those of contracts and all that name it, are collected once;
each mutant is a fork in which the code of the method's functions is replaced and they run until one fails.
What the tests do not notice is printed at the end. The verdicts are kept in a file by the text of the method, so that
a run that was stopped goes on, and a method that changed is tried again. Not collected by pytest, nor run in CI.
"""

from __future__ import annotations

import argparse
import ast
import doctest
import hashlib
import importlib
import itertools
import json
import os
import random
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = {
    "adapters": ("adapters/methods", "adapters"), "codecs": ("cache/codecs", "cache"),
    "quantize": ("quantize/methods", "quantize"), "decompose": ("decompose", "decompose"),
    "factor": ("compress/methods", "compress"), "allocate": ("allocate", "allocate"),
    "transforms": ("optim/transforms", "optim"), "layers": ("attention/methods", "attention"),
}  # fmt: skip
"""The folder of a family's methods in ``src/polyad``, and that of its tests in ``tests``."""
SLOW = "compilation or ddp or fsdp2"
"""Tests that say nothing of a formula and take longest."""
LIMIT = 100
"""Seconds of processor time after which a mutant counts as noticed: it does not end."""
SWAPPED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}
TURNED = {ast.Lt: ">=", ast.GtE: "<", ast.Gt: "<=", ast.LtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
OTHERWISE = {"min": "max", "max": "min", "amin": "amax", "amax": "amin", "argmax": "argmin", "argmin": "argmax"}
FALSE = {"True": "False", "False": "True"}

EQUIVALENT = {
    ("vidkv", "blocks.sign(), 0) - 2)"): "codes are taken modulo four: two more and two less are one",
}  # fmt: skip
"""Mutants that change no result, by method and a part of their line, each with the reason."""

Edit = tuple[int, int, int, str, str]
"""Line, first column and last of what is replaced, in bytes; what stands there then; and the kind of change."""


class Edits(ast.NodeVisitor):
    """All changes of a method's code: not of its card, messages, annotations and class constants."""

    def __init__(self, source: str) -> None:
        self.lines, self.edits = [line.encode() for line in source.split("\n")], list[Edit]()

    def change(self, node: ast.AST, text: str, kind: str) -> None:
        if isinstance(node, ast.expr) and node.lineno == node.end_lineno and node.end_col_offset is not None:
            self.edits.append((node.lineno, node.col_offset, node.end_col_offset, text, kind))

    def text(self, node: ast.expr) -> str:
        return self.lines[node.lineno - 1][node.col_offset : node.end_col_offset].decode()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                self.visit(statement)

    def visit_Module(self, node: ast.Module) -> None:
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                self.visit(statement)

    def visit_Raise(self, node: ast.Raise) -> None: ...

    def visit_Assert(self, node: ast.Assert) -> None: ...

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None: ...

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        refuses = all(isinstance(statement, ast.Raise) for statement in node.body)
        for part in [*([] if refuses else [node.test, *node.body]), *node.orelse]:
            self.visit(part)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        left, right = (self.text(side) if side.lineno == side.end_lineno else "" for side in (node.left, node.right))
        if left and right and type(node.op) in SWAPPED:
            sign = SWAPPED[type(node.op)]
            if not isinstance(node.left, ast.List | ast.Constant) or isinstance(node.op, ast.Mult | ast.Div):
                self.change(node, f"({left} {sign} {right})", "sign" if sign in "+-" else "factor")
            self.change(node, f"({left})", "dropped")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        dimension = isinstance(node.operand, ast.Constant)  # -1 and 1 are often one
        if isinstance(node.op, ast.USub | ast.Not) and not dimension:
            self.change(node, f"({self.text(node.operand)})", "sign")
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in ("mT", "T") and isinstance(node.value, ast.expr):
            self.change(node, self.text(node.value), "transpose")
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        for part in ast.walk(node.slice):
            if isinstance(part, ast.Slice):
                for bound in filter(None, (part.lower, part.upper)):
                    self.change(bound, f"({self.text(bound)} - 1)", "off by one")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1 and type(node.ops[0]) in TURNED:
            left, right = self.text(node.left), self.text(node.comparators[0])
            self.change(node, f"({left} {TURNED[type(node.ops[0])]} {right})", "turned")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in OTHERWISE and isinstance(node.func, ast.Name):
            self.change(node.func, OTHERWISE[name], "turned")
        elif name in OTHERWISE and isinstance(node.func, ast.Attribute):
            self.change(node.func, f"{self.text(node.func.value)}.{OTHERWISE[name]}", "turned")
        for keyword in node.keywords:
            flag = isinstance(keyword.value, ast.Constant) and FALSE.get(str(keyword.value.value))
            if flag and keyword.arg not in ("keepdim", "persistent", "strict", "full_matrices"):
                self.change(keyword.value, flag, "turned")
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id == "rank" and isinstance(node.ctx, ast.Load):
            self.change(node, "(rank + 1)", "off by one")


def edits_of(source: str, most: int) -> list[Edit]:
    """The changes of a file, at most so many, chosen over its lines by the file's text."""
    visitor = Edits(source)
    visitor.visit(ast.parse(source))
    edits = [e for e in dict.fromkeys(visitor.edits) if "# unmutated" not in visitor.lines[e[0] - 1].decode()]
    if len(edits) > most > 0:
        edits = random.Random(len(source)).sample(edits, most)
    return sorted(edits)


def apply_edit(source: str, edit: Edit) -> str:
    line, first, last, text, _ = edit
    lines = [one.encode() for one in source.split("\n")]
    lines[line - 1] = lines[line - 1][:first] + text.encode() + lines[line - 1][last:]
    return "\n".join(one.decode() for one in lines)


def public_names(source: str) -> set[str]:
    """Classes and functions that a method's file offers."""
    nodes = ast.parse(source).body
    return {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")}


def tests_naming(file: Path, words: set[str]) -> list[str]:
    """The tests of a file that name one of the words, themselves or in a function of the file that they call."""
    source = file.read_text()
    functions = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    uses: dict[str, set[str]] = {}
    for name, node in functions.items():
        inner = [*ast.walk(node)]
        uses[name] = {n.id for n in inner if isinstance(n, ast.Name)}
        uses[name] |= {n.value for n in inner if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        uses[name] |= {n.attr for n in inner if isinstance(n, ast.Attribute)}
    concerned = {name for name in functions if uses[name] & words}
    while more := {name for name in functions if uses[name] & concerned} - concerned:
        concerned |= more
    return sorted(name for name in concerned if name.startswith("test_"))


def selection(name: str, source: str, files: list[Path]) -> str:
    """The tests that concern a method: those of contracts by its name, others that name what its file offers."""
    words = {name, *public_names(source)}
    contract = [f"[{name}{end}" for end in "-]"]
    tests = [test for file in files for test in tests_naming(file, words)]
    return f"({' or '.join(dict.fromkeys([*contract, f'test_{name}', *tests]))}) and not ({SLOW})"


def test_files(tests: Path, name: str, source: str) -> list[Path]:
    """The files with tests that can be of the method: those that name it first, then the contracts of its kinds."""
    words, kinds = {name, *public_names(source)}, set(re.findall(r'@method\(\s*"(\w+)"', source))
    texts = {file: file.read_text() for file in sorted((ROOT / "tests").rglob("test_*.py"))}
    contracts = [f for f, text in texts.items() if any(f'methods("{k}")' in text for k in kinds) and "CHECKS" in text]
    others = [f for f, t in texts.items() if tests in f.parents and (tests_naming(f, words) or f'"{name}"' in t)]
    return [*(file for file in others if file not in contracts), *contracts]


def codes_of(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """Every function of compiled code that stands in no other one, by its qualified name."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            if "<locals>" not in part.co_qualname:
                yield part.co_qualname, part
            yield from codes_of(part)


def functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """Every function that a module defines, those of its classes too, without what is wrapped around it."""
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    for thing in [t for owner in (module, *classes) for t in vars(owner).values()]:
        inner: Any = thing.fget if isinstance(thing, property) else getattr(thing, "__func__", thing)
        while hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        if isinstance(inner, FunctionType) and inner.__module__ == module.__name__:
            yield inner


def replace_code(module: ModuleType, source: str) -> None:
    """Put the code of other source, which has the same functions, into the functions of a module."""
    codes = dict(codes_of(compile(source, str(module.__file__), "exec")))
    for function in functions_of(module):
        if function.__code__.co_qualname in codes:
            function.__code__ = codes[function.__code__.co_qualname]


class Trials:
    """A plugin of pytest that runs what was collected once, then in a fork for every mutant, quick tests first."""

    def __init__(self, module: ModuleType, mutants: list[str], seconds: float, tell: Callable[[str], None]) -> None:
        self.module, self.mutants, self.seconds, self.tell = module, mutants, seconds, tell

    def pytest_runtestloop(self, session: Any) -> bool:
        takes = list[tuple[float, int]]()
        for i, item in enumerate(session.items):
            start = time.process_time()
            run_test(item)
            takes.append((time.process_time() - start, i))
        if session.testsfailed:  # nothing can be said of mutants where the method itself fails
            return True
        takes.sort()
        sums = itertools.accumulate(duration for duration, _ in takes)
        tests = [session.items[i] for (_, i), total in zip(takes, sums, strict=True) if total <= self.seconds]
        for mutant in self.mutants:
            self.tell(self.judge(session, tests, mutant))
        return True

    def judge(self, session: Any, tests: list[Any], mutant: str) -> str:
        child = os.fork()
        if child == 0:
            limit = int(min(LIMIT, 3 * self.seconds + 5))
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            os._exit(self.try_mutant(session, tests, mutant))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return {0: "survived", 3: "broken", 5: "no test"}.get(code, "noticed")

    def try_mutant(self, session: Any, tests: list[Any], mutant: str) -> int:
        try:
            replace_code(self.module, mutant)
        except Exception:
            return 3
        for test in tests:
            run_test(test)
            if session.testsfailed:
                return 1
        if doctest.testmod(self.module).failed:
            return 1
        return 0 if tests else 5


def run_test(item: Any) -> None:
    """Run one test by itself: fixtures of its module are set up anew."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def verdicts_of(path: Path, tests: Path, mutants: list[str], seconds: float) -> Iterator[str]:
    """Run the examples and tests of the method in ``path`` on every mutant, in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        import pytest

        source, name = path.read_text(), ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        tell = partial(write_line, write)
        trials = Trials(importlib.import_module(name), mutants, seconds, tell)
        files = test_files(tests, path.stem, source)
        chosen = selection(path.stem, source, files)
        pytest.main(["-q", "-p", "no:cacheprovider", "-k", chosen, *map(str, files)], plugins=[trials])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        yield from (line.strip() for line in pipe)
    os.waitpid(child, 0)


def write_line(pipe: int, line: str) -> None:
    os.write(pipe, f"{line}\n".encode())


def methods_of(families: list[str], only: str | None) -> Iterator[tuple[Path, Path]]:
    """The files of methods of the families, each with the folder of its tests."""
    for family in families:
        folder, tests = FAMILIES[family]
        for path in sorted((ROOT / "src" / "polyad" / folder).rglob("*.py")):
            chosen = only is None or path.stem in only.split(",")
            if chosen and not path.name.startswith("_") and "@method(" in path.read_text():
                yield path, ROOT / "tests" / tests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="+", choices=FAMILIES)
    parser.add_argument("--most", type=int, default=12, help="mutants a file at most; 0: all")
    parser.add_argument("--only", help="methods by name, with commas between")
    parser.add_argument("--seconds", type=float, default=1e9, help="of tests for a mutant, the quickest first")
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "polyad-mutants.jsonl")
    parser.add_argument("--again", action="store_true", help="try again what was not noticed: the tests have changed")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long; run again to go on")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    import hypothesis  # noqa: F401
    import torch

    import polyad.testing  # noqa: F401
    import tiny  # noqa: F401

    torch.set_num_threads(1)
    kept = dict(map(json.loads, options.store.read_text().splitlines())) if options.store.exists() else {}
    if options.again:
        kept = {key: verdict for key, verdict in kept.items() if verdict == "noticed"}
    end, counts = time.monotonic() + 60 * options.minutes, dict[str, int]()
    for path, tests in methods_of(options.families, options.only):
        source = path.read_text()
        keys = {f"{path.stem} {hashlib.sha256(source.encode()).hexdigest()[:12]} {e}": e
                for e in edits_of(source, options.most)}  # fmt: skip
        missing = [key for key in keys if key not in kept] if time.monotonic() < end else []
        if missing:
            verdicts = verdicts_of(path, tests, [apply_edit(source, keys[key]) for key in missing], options.seconds)
            with options.store.open("a") as store:
                for key, verdict in zip(missing, verdicts, strict=False):
                    kept[key] = verdict
                    print(json.dumps([key, verdict]), file=store, flush=True)
            kept = dict.fromkeys(missing, "broken") | kept  # the method itself fails its tests
        for key, edit in keys.items():
            verdict = kept.get(key, "not tried")
            line = apply_edit(source, edit).split("\n")[edit[0] - 1].strip()
            if verdict != "noticed" and any(path.stem == name and part in line for name, part in EQUIVALENT):
                verdict = "equivalent"
            counts[verdict] = counts.get(verdict, 0) + 1
            if verdict in ("survived", "no test", "broken"):
                print(f"{verdict}: src/{path.relative_to(ROOT / 'src')}:{edit[0]}: {edit[4]}: {line}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


if __name__ == "__main__":
    main()
