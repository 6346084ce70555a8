"""Adds the example methods of tests/recipes to a copy of this checkout, tests them there, and takes them out again.

A method takes four files by hand: its own, the line of import in its package's ``__init__``, its claim and a
changelog fragment. The table of methods and the list of messages are rewritten by commands, and the claim's result
is written by its own. ``python tests/add_methods.py`` prints a line a step and ends with 1 at the first that fails.
Further arguments go to every run of pytest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILT = {"__pycache__", ".pytest_cache", "built"}
CATALOGUE = [f"tests/house/test_{name}.py" for name in ("catalogue", "rooms", "house", "docs", "messages")] + [
    "tests/claims/test_claims.py"
]
COMMAND = "from polyad.cli import main; main()"


@dataclass(frozen=True)
class Recipe:
    """An example method: its name in the catalogue, its claim's handle, its package, import and contract test."""

    kind: str
    name: str
    handle: str
    package: str
    line: str
    contract: str

    @classmethod
    def read(cls, manifest: Path) -> Recipe:
        """Read a manifest, which lies in the folder of its kind."""
        values = tomllib.loads(manifest.read_text(encoding="utf-8"))
        return cls(manifest.parent.name, line=values.pop("import"), **values)

    @property
    def files(self) -> list[Path]:
        """The three files that are added, relative to the checkout."""
        folder = ROOT / "tests" / "recipes" / self.kind
        return sorted(
            p.relative_to(folder) for p in folder.glob("*/**/*") if p.is_file() and BUILT.isdisjoint(p.parts)
        )

    @property
    def shown_name(self) -> str:
        """The name that users import."""
        return self.line.split()[-1]

    def add(self, tree: Path) -> None:
        """Write the four files."""
        if len(self.files) != 3:
            raise ValueError(f"{self.kind} has {len(self.files)} files beside its manifest, not 3")
        for file in self.files:
            if (tree / file).exists() or not (tree / file).parent.is_dir():
                raise ValueError(f"{file} is there already, or its folder is not")
            shutil.copy(ROOT / "tests" / "recipes" / self.kind / file, tree / file)
        package = tree / "src" / "polyad" / self.package / "__init__.py"
        package.write_text(self._imported(package.read_text(encoding="utf-8")), encoding="utf-8")

    def remove(self, tree: Path) -> None:
        """Delete the three files, what the claim's command wrote, the line of import and the name."""
        for file in [*self.files, Path("src", "polyad", "claims", "results", f"{self.handle}.json")]:
            (tree / file).unlink()
        package = tree / "src" / "polyad" / self.package / "__init__.py"
        source = package.read_text(encoding="utf-8").replace(f"{self.line}\n", "")
        package.write_text(re.sub(rf'(\n +)?"{self.shown_name}",( (?="))?', "", source), encoding="utf-8")

    def _imported(self, source: str) -> str:
        """A package's source with the line of import and the name in ``__all__``, each in its place."""
        later = next(m for m in re.finditer(r"^from polyad.*$|^$\n(?=__all__)", source, re.M) if self._precedes(m[0]))
        source = f"{source[: later.start()]}{self.line}\n{source[later.start() :]}"
        names = [m for m in re.finditer(r'"(\w+)",?', source) if m.start() > source.index("__all__ = [")]
        after = next(m for m in names if _order(m[1]) > _order(self.shown_name))
        space = re.search(r"(\n *)?$", source[: after.start()])
        assert space is not None
        alone = space[0] and source[after.end()] == "\n"
        return f'{source[: after.start()]}"{self.shown_name}",{space[0] if alone else " "}{source[after.start() :]}'

    def _precedes(self, line: str) -> bool:
        return not line.strip() or self.line.split()[1] < line.split()[1]


def _order(name: str) -> tuple[bool, bool, str]:
    """The order of ``__all__``: constants, classes, functions."""
    return not name.isupper(), not name[0].isupper(), name


class Tree:
    """A copy of the tracked files, and commands that are run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, listed.stdout.split("\0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        places = {"PYTHONPATH": str(folder / "src"), "POLYAD_CACHE": str(folder.parent / "cache")}
        self.environment = {**os.environ, **places, "OMP_NUM_THREADS": "1"}

    def python(self, *arguments: str) -> str:
        """The output of Python with these arguments; on failure, all that it printed, and the end."""
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def rewrite(self) -> None:
        """Run the commands that write what follows from the source."""
        for command in ("docs/pages.py", "tests/house/messages.py"):
            self.python(command)

    def tests(self, *arguments: str) -> list[str]:
        """Run tests; the lines that name those that passed, and a last one with their count."""
        printed = self.python("-m", "pytest", "-p", "no:cacheprovider", "-rA", *arguments, *sys.argv[1:])
        lines = printed.splitlines()
        return [*(line for line in lines if line.startswith("PASSED")), lines[-1]]

    def contents(self) -> dict[str, str]:
        """The sha256 of every file that is not built."""
        files = (p for p in self.folder.rglob("*") if p.is_file() and BUILT.isdisjoint(p.parts))
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def changed_files(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """The files that were added, removed or changed."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def say(what: str, clock: float) -> None:
    """Print a step and the seconds it took."""
    print(f"{time.perf_counter() - clock:6.1f} s  {what}", flush=True)


def add_and_test(tree: Tree, recipes: list[Recipe]) -> None:
    """Add every method, hold each to its kind's contract, and the whole catalogue to its tests."""
    for recipe in recipes:
        clock, before = time.perf_counter(), tree.contents()
        recipe.add(tree.folder)
        count = len(changed_files(before, tree.contents()))
        if count != 4:
            sys.exit(f"{recipe.name} changed {count} files, not 4")
        say(f"{recipe.kind} {recipe.name}: {count} files", clock)
    clock = time.perf_counter()
    tree.rewrite()
    say("docs/methods.md and tests/house/messages.txt are rewritten", clock)
    clock, names = time.perf_counter(), " or ".join(recipe.name for recipe in recipes)
    passed = tree.tests(*(recipe.contract for recipe in recipes), "tests/house/test_house.py", "-k", names)
    for recipe in recipes:
        count = sum(f"{recipe.contract}::test_contract[{recipe.name}-" in line for line in passed)
        if not count:
            sys.exit(f"{recipe.contract} has no test of {recipe.name}")
        say(f"the contract of {recipe.name}: {count} tests passed", clock)
    clock = time.perf_counter()
    passed = tree.tests(*CATALOGUE, "-k", "not examples_run")
    say(f"the tests that hold the catalogue, before any claim has run: {passed[-1]}", clock)


def run_claims(tree: Tree, recipes: list[Recipe]) -> None:
    """Run every claim by its command; the list of methods and the table show the verdicts."""
    verdicts: dict[str, str] = {}
    for recipe in recipes:
        clock = time.perf_counter()
        lines = json.loads(tree.python("-c", COMMAND, "claims", recipe.handle, "--json"))
        verdicts[recipe.name] = "; ".join(line["verdict"] for line in lines)
        say(f"polyad claims {recipe.handle}: {verdicts[recipe.name]}", clock)
    clock = time.perf_counter()
    cards = {card["name"]: card for card in json.loads(tree.python("-c", COMMAND, "methods", "--json"))}
    for recipe in recipes:
        listed = "; ".join(line["verdict"] for line in cards[recipe.name]["claims"])
        if listed != verdicts[recipe.name] or cards[recipe.name]["kind"] != recipe.kind:
            sys.exit(f"polyad methods lists {recipe.name} as {cards[recipe.name]}")
    say(f"polyad methods lists {', '.join(recipe.name for recipe in recipes)} with their verdicts", clock)
    clock = time.perf_counter()
    tree.python("docs/pages.py")
    table = (tree.folder / "docs" / "methods.md").read_text(encoding="utf-8")
    for recipe in recipes:
        if f"`{recipe.name}` | {verdicts[recipe.name]} |" not in table:
            sys.exit(f"docs/methods.md does not say of {recipe.name} that its claim {verdicts[recipe.name]}")
    say("docs/methods.md, rewritten once more, has them too", clock)


def main() -> None:
    """Add, test, run, remove, and compare."""
    start, recipes = time.perf_counter(), sorted(map(Recipe.read, ROOT.glob("tests/recipes/*/recipe.toml")), key=str)
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder) / "tree")
        before = tree.contents()
        say(f"{len(before)} files copied", start)
        add_and_test(tree, recipes)
        run_claims(tree, recipes)
        clock = time.perf_counter()
        for recipe in recipes:
            recipe.remove(tree.folder)
        tree.rewrite()
        left = changed_files(before, tree.contents())
        if left:
            sys.exit(f"after the methods were removed, these files are not as they were: {', '.join(sorted(left))}")
        say("all are removed, and every file is as it was before", clock)
    say(f"{len(recipes)} methods added, tested, run and removed", start)


if __name__ == "__main__":
    main()
