"""The definitions that a claim rests on: which count, which changes show, and that files may move."""

import re
from pathlib import Path

import pytest

import polyad
from polyad.claims import _scripts as scripts
from polyad.claims import handles, results
from polyad.claims._scripts import definition_labels, lost_names
from polyad.claims.definitions import Sources

FILES = {
    "claims/adapters/thing": """
        from typing import Any
        from polyad.claims.record import Result
        from polyad.claims._texts import windows
        from polyad.methods import Method

        COUNT = 3

        def claim(callback: Any = None) -> Result:
            return Result("as stated", Method(COUNT).loss(windows()), "<=", 1.0, {}, 0)
    """,
    "claims/_texts": """
        def windows():
            return list(range(7))

        def unused():
            return 1
    """,
    "claims/record": "class Result: ...\n",
    "methods/__init__": """
        from polyad.methods.method import Method
        from polyad.methods.other import other
    """,
    "methods/method": '''
        """A method."""

        from __future__ import annotations

        from polyad import _check
        from polyad._card import Paper, method
        from polyad.algebra import root
        from polyad.methods import _sweeps
        from polyad.methods._tables import TABLE as KINDS
        from polyad.methods.host import Host

        PAPER = Paper("A", 2000, "B", "doi:1")

        @method("function", papers=(PAPER,), example={"n": 1}, curve=root)
        class Method(Host):
            """What it does."""

            scale: float = 2.0

            def __init__(self, n: int) -> None:
                if n < 0:
                    raise ValueError(f"n={n} is negative")
                _check.finite("n", n)
                self.n = n

            def loss(self, x: list[int]) -> float:
                """The loss."""
                found = [KINDS["a"] * y for y in x]  # as it is
                total = sum(found)
                if total < 0:
                    raise StopIteration("nothing left")
                return root(_sweeps.swept(total))
    ''',
    "methods/other": "def other():\n    return 2\n",
    "methods/host": "class Host:\n    def start(self):\n        return 0\n",
    "methods/_sweeps": """
        from polyad.algebra import root
        from polyad.algebra._exact import doubled

        def swept(x):
            def inner(y):
                return y + step
            step = 1
            return inner(x) + root(doubled(x))
    """,
    "methods/_tables": 'TABLE = {}\nTABLE["a"] = 5\n',
    "algebra/__init__": "from polyad.algebra.roots import root\n",
    "algebra/roots": "def root(x):\n    return x\n",
    "algebra/_exact": "def doubled(x):\n    return 2 * x\n",
    "_check": "def finite(name, x): ...\ndef whole(name, x, least): ...\n",
    "_card": "def method(*a, **b): ...\nclass Paper: ...\n",
}
ROOTS = [("polyad.claims.adapters.thing", "claim"), ("polyad.methods.method", "Method")]


def text(source):
    """A source without the indentation that it has in this file."""
    lines = source.strip("\n").split("\n")
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines).rstrip() + "\n"


class Package:
    """A package of a few files in polyad's place."""

    def __init__(self, folder):
        self.folder = folder
        self.files = {name: text(source) for name, source in FILES.items()}

    def sources(self):
        for name, source in self.files.items():
            file = self.folder / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
        return Sources({"polyad": self.folder})

    def replace(self, name, before, after):
        assert before in self.files[name]
        self.files[name] = self.files[name].replace(before, after)
        return self

    def move(self, old, new):
        """Move a file, and write its new place in every import."""
        (self.folder / f"{old}.py").unlink(missing_ok=True)
        self.files[new] = self.files.pop(old)
        (before, stem), (after, last) = ([*p.rsplit("/", 1)] for p in (old, new))
        before, after = before.replace("/", "."), after.replace("/", ".")
        for name, source in self.files.items():
            source = source.replace(f"polyad.{before}.{stem} ", f"polyad.{after}.{last} ")
            source = source.replace(f"from polyad.{before} import {stem}\n", f"from polyad.{after} import {last}\n")
            self.files[name] = re.sub(rf"\b{stem}\.(?=swept)", f"{last}.", source)


@pytest.fixture
def package(tmp_path):
    return Package(tmp_path)


def labels(package):
    return definition_labels(package.sources(), ROOTS)


def names(found):
    return {label.partition(" ")[0] for label in found}


def test_the_claim_its_method_and_private_modules_of_their_packages_count(package):
    assert names(labels(package)) == {"claim", "COUNT", "windows", "Method", "swept", "TABLE"}


@pytest.mark.parametrize(
    ("file", "before", "after", "lost"),
    [
        ("claims/adapters/thing", "COUNT = 3", "COUNT = 4", ["COUNT"]),
        ("claims/adapters/thing", '"<="', '">="', ["claim"]),
        ("claims/_texts", "range(7)", "range(8)", ["windows"]),
        ("methods/method", "scale: float = 2.0", "scale: float = 3.0", ["Method"]),
        ("methods/method", "scale: float = 2.0", "scale = 2.0", ["Method"]),
        ("methods/method", "curve=root", "curve=sum", ["Method"]),
        ("methods/method", "raise StopIteration", "raise KeyError", ["Method"]),
        ("methods/method", "total < 0", "total < 1", ["Method"]),
        ("methods/method", "sum(found)", "max(found)", ["Method"]),
        ("methods/method", "self, n: int", "self, m: int", ["Method"]),
        ("methods/method", "(Host)", "", ["Method"]),
        ("methods/_sweeps", "y + step", "y - step", ["swept"]),
        ("methods/_tables", "= 5", "= 6", ["TABLE"]),
    ],
)
def test_changes_of_what_is_computed_show(package, file, before, after, lost):
    recorded = labels(package)
    assert lost_names(package.replace(file, before, after).sources(), ROOTS, recorded) == lost


def test_a_function_that_is_called_otherwise_shows(package):
    recorded = labels(package)
    package.replace("methods/_sweeps", "def swept", "def sweep").replace("methods/method", ".swept(", ".sweep(")
    assert lost_names(package.sources(), ROOTS, recorded) == ["Method", "swept"]


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("algebra/roots", "return x", "return -x"),
        ("algebra/_exact", "2 * x", "x + x"),
        ("methods/host", "return 0", "return 1"),
        ("methods/other", "return 2", "return 3"),
        ("claims/_texts", "return 1", "return 2"),
        ("claims/record", "class Result: ...", "class Result:\n    x = 1"),
        ("methods/method", '"""A method."""', '"""A method, in other words."""'),
        ("methods/method", '"""The loss."""', ""),
        ("methods/method", "  # as it is", ""),
        ("methods/method", "x: list[int]) -> float", "x)"),
        ("methods/method", "is negative", "must be at least 0"),
        ("methods/method", "nothing left", "no term is left"),
        ("methods/method", "n < 0", "n < 1"),
        ("methods/method", "raise ValueError", "raise TypeError"),
        ("methods/method", '_check.finite("n", n)', '_check.whole("n", n, least=0)'),
        ("methods/method", '"function", papers=(PAPER,), example={"n": 1}', '"solve", papers=()'),
        ("methods/method", "found", "products"),
        ("methods/method", "for y in x", "for part in x"),
        ("methods/method", "from polyad.methods import _sweeps", "from polyad.methods._sweeps import swept"),
        ("methods/method", "TABLE as KINDS", "TABLE"),
        ("methods/_sweeps", "step", "by"),
        ("methods/_sweeps", "inner", "shift"),
        ("methods/_tables", "TABLE = {}", "# rules\nOTHER = 1\nTABLE = {}"),
    ],
)
def test_what_lies_further_away_and_what_is_only_said_do_not(package, file, before, after):
    recorded = labels(package)
    package.replace(file, before, after)
    if "import swept" in after:
        package.replace(file, "_sweeps.swept(", "swept(")
    if before == "for y in x":
        package.replace(file, "* y", "* part")
    if before == "TABLE as KINDS":
        package.replace(file, "KINDS[", "TABLE[")
    assert labels(package) == recorded
    assert lost_names(package.sources(), ROOTS, recorded) == []


def test_the_order_of_definitions_does_not_matter(package):
    recorded = labels(package)
    first, second = package.files["claims/_texts"].split("\n\n")
    package.files["claims/_texts"] = f"{second}\n\n{first}\n"
    assert lost_names(package.sources(), ROOTS, recorded) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("methods/method", "methods/room/renamed"),
        ("methods/_sweeps", "methods/room/sweeps"),
        ("methods/_tables", "elsewhere/tables"),
        ("claims/_texts", "claims/adapters/_words"),
        ("claims/adapters/thing", "claims/methods/thing"),
        ("algebra/roots", "algebra/exact/root"),
        ("methods/host", "methods/host/host"),
    ],
)
def test_a_file_may_move(package, old, new):
    recorded = labels(package)
    package.move(old, new)
    place = {f"polyad.{old.replace('/', '.')}": f"polyad.{new.replace('/', '.')}"}
    roots = [(place.get(module, module), name) for module, name in ROOTS]
    assert lost_names(package.sources(), roots, recorded) == []
    package.replace("claims/_texts" if "claims/_texts" in package.files else new, "range(7)", "range(8)")
    assert lost_names(package.sources(), roots, recorded) == ["windows"]


def test_statements_that_define_nothing_belong_to_what_they_name(package):
    sources = package.sources()
    assert len(sources.definitions("polyad.methods._tables", "TABLE")) == 2


def test_everything_that_a_file_rests_on_can_be_asked_for(package):
    definitions = package.sources().reachable(ROOTS)
    assert {"root", "Host", "Result"} <= {name for definition in definitions for name in definition.names}


MOVED = "moved"


def moved_tree(folder):
    """A copy of polyad in which every module stands one folder deeper, and where each now is."""
    root = Path(polyad.__file__).parent
    sources = {file.relative_to(root): file.read_text(encoding="utf-8") for file in root.rglob("*.py")}
    dotted = {path: ".".join(("polyad", *path.with_suffix("").parts)) for path in sources if path.stem != "__init__"}
    places = {
        name: name.rpartition(".")[0] + f".{MOVED}." + name.rpartition(".")[2]
        for path, name in dotted.items()
        if len(path.parts) > 1
    }
    for path, source in sources.items():
        target = path.parent / MOVED / path.name if dotted.get(path) in places else path
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_text(rewritten(source, places), encoding="utf-8")
    return places


def rewritten(source, places):
    """A source with its imports of moved modules at their new places."""

    def module(match):
        return f"{match[1]}{places.get(match[2], match[2])}"

    def names(match):
        package, words = match[1], [word.strip() for word in match[2].strip("()\n").split(",") if word.strip()]
        inner = [word for word in words if f"{package}.{word}" in places and word.startswith("_")]
        outer = [word for word in words if word not in inner]
        lines = [f"from {package} import {', '.join(outer)}"] if outer else []
        return "; ".join([*lines, *(f"from {package}.{MOVED} import {word}" for word in inner)])

    source = re.sub(r"from (polyad[\w.]*) import (\([^)]*\)|[^\n(#]+)", names, source)
    return re.sub(r"((?:from|import) )(polyad[\w.]*)", module, source)


def test_every_file_of_the_package_may_move_and_no_claim_notices(tmp_path):
    places = moved_tree(tmp_path)
    sources = Sources({"polyad": tmp_path})
    assert len(places) > 300
    for result in results():
        roots = [(places[module], name) for module, name in scripts._roots(result.handle)]
        assert lost_names(sources, roots, result.definitions) == result.changed, result.handle


def test_a_change_in_a_method_shows_in_its_own_claims_alone(tmp_path):
    places = moved_tree(tmp_path)
    module = scripts._methods()["ia3"][0][0]
    file = tmp_path.joinpath(*places[module].split(".")[1:]).with_suffix(".py")
    source = file.read_text()
    assert "class IA3(" in source
    file.write_text(source.replace("class IA3(", "class IA3(object, "))
    sources = Sources({"polyad": tmp_path})
    lost = {}
    for result in results():
        roots = [(places[module], name) for module, name in scripts._roots(result.handle)]
        lost[result.handle] = set(lost_names(sources, roots, result.definitions)) - set(result.changed)
    assert {handle for handle, new in lost.items() if new} == {"ia3"}


def test_every_claim_measures_itself_and_its_methods():
    for handle in handles():
        measured = names(scripts.measured_definitions(handle))
        assert "claim" in measured
        assert {name for _, name in scripts._methods()[handle]} <= {part for n in measured for part in n.split(",")}


def test_no_commit_is_named_outside_a_checkout(tmp_path, monkeypatch):
    commit = scripts.commit_of_checkout()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}", commit)
    monkeypatch.setattr(scripts, "FOLDER", tmp_path)
    assert scripts.commit_of_checkout() is None
