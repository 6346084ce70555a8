"""The rooms of the house: no circles, nothing private of others, methods without their host, sizes, and names."""

import ast
import functools
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import polyad

ROOT = Path(polyad.__file__).parent
LONG = {"_moved.py": "one table of everything that has moved since 0.1.0"}
"""Files over 200 lines, each with its reason; at most four."""
ROOMS_OF_METHODS = {"methods", "codecs", "transforms", "subspaces", "curvature"}
PARTICIPLE = re.compile(r"_?[a-z]+(ed|ing|ept|told|held|seen|given|known|drawn|split|cut)")
VAGUE = {"found", "made", "own", "held", "told", "kept", "given", "seen", "known", "drawn"}
CLAUSE = re.compile(r"^(What|How|Whether|Where|Who|Which|Such|That|When|Why) ")
SHARE = 0.02
"""The share of functions that may have a bare participle for a name, and of those with a vague local name."""


def module_name(path):
    """The dotted name of a file of the package."""
    return ".".join(("polyad", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


FILES = {module_name(p): p for p in sorted(ROOT.rglob("*.py"))}
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports(name):
    """(module, name in it) for each import of polyad in a module, at any depth."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "polyad":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] == "polyad")


@functools.cache
def homes(module, name):
    """The modules that define a name, followed through the packages that hand it on."""
    if name is not None and f"{module}.{name}" in FILES and not _bound(module, name):
        return frozenset({f"{module}.{name}"})
    if module in PACKAGES and name is not None:
        for inner, shown in imports(module):
            if shown == name:
                return homes(inner, shown)
    return frozenset({module}) if module in FILES else frozenset()


def _bound(package, name):
    return any(shown == name and f"{inner}.{shown}" not in FILES for inner, shown in imports(package))


@functools.cache
def used(name):
    """The modules that a module uses; what a package of rooms only shows is not counted as used by it."""
    return frozenset().union(*(homes(*pair) for pair in imports(name))) - {name}


def cycles(package):
    """Strongly connected groups of two or more modules of a top-level package."""
    inside = {name for name in FILES if name.startswith(f"{package}.") and FILES[name].name != "__init__.py"}
    reach = {name: _reach(name, inside) for name in inside}
    return {frozenset(b for b in reach[a] if a in reach[b]) for a in inside if a in reach[a]}


def _reach(start, inside):
    seen, pending = set(), [start]
    while pending:
        for name in used(pending.pop()) & inside:
            if name not in seen:
                seen.add(name)
                pending.append(name)
    return seen


@pytest.mark.parametrize("package", sorted(name for name in PACKAGES if name.count(".") == 1))
def test_modules_of_a_package_do_not_import_in_circles(package):
    assert not cycles(package), sorted(sorted(group) for group in cycles(package))


def private_of_others():
    """Imports of underscore modules and names from outside the folder that holds them."""
    for name in FILES:
        for module, shown in imports(name):
            parts = [*module.split("."), *([shown] if shown else [])]
            for i, part in enumerate(parts):
                owner = ".".join(parts[:i])
                inside = name == owner or name.startswith(f"{owner}.")
                if part.startswith("_") and not part.startswith("__") and not inside:
                    yield f"{name} imports {'.'.join(parts)}"


def test_nothing_private_is_imported_from_outside_its_folder():
    assert list(private_of_others()) == []


def test_methods_import_the_interface_and_never_the_host():
    wrong = [
        f"{name} uses {other}"
        for name in FILES
        if name.count(".") > 1 and name.split(".")[-2] in ROOMS_OF_METHODS
        for other in used(name)
        if "host" in other.split(".") and other.split(".")[1] == name.split(".")[1]
    ]
    assert wrong == []


def test_no_room_holds_more_than_thirty_modules():
    rooms = Counter(name.rpartition(".")[0] for name in FILES if FILES[name].name != "__init__.py")
    assert {room: n for room, n in rooms.items() if n > 30 and ".claims" not in room} == {}


def test_tests_stand_in_the_rooms_of_what_they_test():
    tests = Path(__file__).parent.parent
    rooms = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")}
    assert rooms - {"house", "together"} <= {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert max(len(list((tests / room).glob("test_*.py"))) for room in rooms) <= 30


def test_at_most_four_files_are_long_and_each_says_why():
    long = {str(path.relative_to(ROOT)) for path in FILES.values() if path.read_text().count("\n") > 200}
    assert len(LONG) <= 4
    assert long == set(LONG)


COMMAND = "a command: its length is the list of its options"
LOOP = "one loop of an algorithm, whose state is its locals"
LONG_FUNCTIONS = {
    **dict.fromkeys(
        [f"cli.{name}.{name}" for name in ("adapt", "cache", "compare", "compress", "convert", "decompose")], COMMAND
    ),
    "cli.evaluate.evaluate": COMMAND,
    "cli.export.export": COMMAND,
    "cli.generate.generate": COMMAND,
    "cli.inspect.inspect": COMMAND,
    "decompose.alternating.extrapolation.alternate": LOOP,
    "decompose.cp.cp_als.cp_als": LOOP,
    "decompose.cp.nonnegative_cp.nonnegative_cp": LOOP,
    "decompose.cp.sparse_cp_als.sparse_cp_als": LOOP,
    "decompose.tucker.hooi.hooi": LOOP,
    "decompose.tucker.nonnegative_tucker.nonnegative_tucker": LOOP,
}
"""Functions over 40 lines, each with its reason."""


def lines_of(node):
    """The lines of a function but for its docstring and decorators."""
    text = ast.get_docstring(node, clean=False)
    documented = node.body[0].end_lineno - node.body[0].lineno + 1 if text is not None else 0
    return node.end_lineno - node.lineno + 1 - documented


def body_lines_of(node):
    """The lines of a function but for its signature and docstring."""
    return lines_of(node) - (node.body[0].lineno - node.lineno)


def test_functions_over_forty_lines_are_few_and_each_says_why():
    long = {f"{name}.{node.name}".removeprefix("polyad."): node for name, node in functions() if lines_of(node) > 40}
    assert set(long) == set(LONG_FUNCTIONS)
    commands = {name: body_lines_of(long[name]) for name, reason in LONG_FUNCTIONS.items() if reason == COMMAND}
    assert {name: n for name, n in commands.items() if n > 40} == {}


def functions():
    """(module, definition) for every function of the package, methods included."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, node


def participles():
    """Functions whose name is a bare participle."""
    return [f"{name}.{node.name}" for name, node in functions() if PARTICIPLE.fullmatch(node.name)]


def vague():
    """Functions that set a local variable called ``found``, ``made``, ``own`` and the like."""
    for name, node in functions():
        stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        if stored & VAGUE:
            yield f"{name}.{node.name}: {sorted(stored & VAGUE)}"


def clauses():
    """Docstrings that begin with a clause in place of saying what the thing does or is."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                line = (ast.get_docstring(node) or "").split("\n")[0]
                if CLAUSE.match(line):
                    yield f"{name}: {line}"


def test_functions_are_named_by_verbs_and_values_by_nouns():
    count = sum(1 for _ in functions())
    assert len(participles()) <= SHARE * count, participles()
    assert len(list(vague())) <= SHARE * count, list(vague())


def meanings():
    """Each public name of the package with the modules that define it.

    A contract, a claim and a command are called by their family, so that their names may come again.
    """
    where = defaultdict(list)
    for name, tree in TREES.items():
        parts = name.split(".")[1:]
        if not parts or parts[0] in ("testing", "claims", "cli") or any(part.startswith("_") for part in parts):
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(name)
    return where


def test_a_public_name_means_one_thing():
    assert len(meanings()) > 1000
    several = {name: homes for name, homes in meanings().items() if len(homes) > 1}
    assert several == {}


def test_a_callback_has_one_type():
    arguments = [
        (name, ast.unparse(argument.annotation))
        for name, node in functions()
        for argument in (*node.args.args, *node.args.kwonlyargs)
        if argument.arg == "callback" and argument.annotation is not None
    ]
    assert len(arguments) > 100
    assert {kind for _, kind in arguments} <= {"Callback", "Callback | None"}, arguments


def test_docstrings_say_what_a_thing_does_or_is():
    assert list(clauses()) == []


if __name__ == "__main__":  # python tests/house/test_rooms.py PACKAGE: what a package still owes
    package = f"polyad.{sys.argv[1]}" if len(sys.argv) > 1 else "polyad"
    owed = defaultdict(list)
    top = sorted(name for name in PACKAGES if name.count(".") == 1 and (package == "polyad" or name == package))
    owed["cycles"] = [" ".join(sorted(group)) for name in top for group in cycles(name)]
    owed["private"] = list(private_of_others())
    owed["participles"], owed["vague"], owed["clauses"] = participles(), list(vague()), list(clauses())
    owed["long"] = [n for n, p in FILES.items() if p.read_text().count("\n") > 200]
    for kind, rows in owed.items():
        rows = [row for row in rows if row.startswith((f"{package}.", f"{package}:")) or package in row]
        print(f"{kind}: {len(rows)}", *(f"\n  {row}" for row in rows))
