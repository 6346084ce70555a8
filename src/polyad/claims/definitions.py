"""The definitions of the package that a piece of code rests on, each with a hash."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from polyad.claims._normal_form import NormalForm, bound_names
from polyad.claims._strip_words import WordStripper

Place = tuple[str, str]
"""The module and the name of a definition."""

Follow = Callable[[str, str], bool]
"""Tells, of a module and of one whose definitions it uses, whether these count too."""


@dataclass(frozen=True)
class Definition:
    """A statement at the top of a module: the names it defines, a hash of what it computes, the places it uses.

    The hash does not depend on the file, nor on comments, docstrings, annotations, sentences of errors and the names
    of local variables. A statement that defines no name counts as part of what it names (``TABLE[kind] = rule``).
    """

    names: frozenset[str]
    digest: str
    uses: frozenset[Place]

    @property
    def label(self) -> str:
        """The names and the first digits of the hash."""
        return f"{','.join(sorted(self.names))} {self.digest[:16]}"


@dataclass(frozen=True)
class Module:
    """The statements of a file by the names they define, and the dotted paths of what it imports by local name."""

    statements: dict[str, list[ast.stmt]]
    origins: Mapping[str, str]


class Sources:
    """The source files of packages, read and never imported, so that the answers are the same on every machine.

    ``folders`` maps each package's name to its folder. Files are read once: make a new one after they have changed.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        self.module = functools.cache(self._read)
        self.definitions = functools.cache(self._define)

    def reachable(
        self, roots: Iterable[Place], follow: Follow = lambda _user, _used: True, names: Collection[str] | None = None
    ) -> set[Definition]:
        """The definitions at ``roots`` and all that these use, through whatever lies between.

        ``follow`` says which of them count. With ``names``, definitions of other names are left out.
        """
        definitions, visited = set[Definition](), set[Place]()
        pending = [(module, (module, name)) for module, name in roots]
        while pending:
            user, (module, name) = pending.pop()
            place = self.home(module, name) if names is None or name in names else None
            if place is None or place in visited or not follow(user, place[0]):
                continue
            visited.add(place)
            new = self.definitions(*place) - definitions
            definitions |= new
            pending += [(place[0], used) for definition in new for used in definition.uses]
        return definitions

    def home(self, module: str, name: str) -> Place | None:
        """The place in which what ``from module import name`` gives is defined; None outside of the packages."""
        visited: set[Place] = set()
        while (module, name) not in visited and self.is_module(module):
            visited.add((module, name))
            file = self.module(module)
            if name in file.statements:
                return module, name
            module, _, name = file.origins.get(name, "").rpartition(".")
        return None

    def is_module(self, path: str) -> bool:
        """Tell whether a dotted path names a file of these packages."""
        return self._file(path) is not None

    def _file(self, path: str) -> Path | None:
        package, *inner = path.split(".")
        if package not in self._folders:
            return None
        place = self._folders[package].joinpath(*inner)
        files = (place / "__init__.py", *([place.with_suffix(".py")] if inner else []))
        return next((file for file in files if file.is_file()), None)

    def _read(self, path: str) -> Module:
        file = self._file(path)
        if file is None:
            raise ValueError(f"{path!r} is no module of {', '.join(self._folders)}")
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        module = Module({}, dict(_imports(tree)))
        for statement in tree.body:
            for name in bound_names([statement]) or self._used_names(statement, module.origins):
                module.statements.setdefault(name, []).append(statement)
        return module

    def _used_names(self, statement: ast.stmt, origins: Mapping[str, str]) -> set[str]:
        """The names that a statement uses which defines none; empty for words alone."""
        bare = WordStripper(origins).visit(statement)
        return set() if bare is None else {name for _, name in NormalForm(bare, origins, self.is_module).uses}

    def _define(self, module: str, name: str) -> frozenset[Definition]:
        """The definitions of a name in a module."""
        statements, origins = self.module(module).statements[name], self.module(module).origins
        definitions: set[Definition] = set()
        for statement in statements:
            form = NormalForm(WordStripper(origins).visit(statement), origins, self.is_module)
            names = frozenset(bound_names([statement]) or {used for _, used in form.uses})
            digest = hashlib.sha256(form.text.encode()).hexdigest()
            uses = frozenset((origin or module, used) for origin, used in form.uses)
            definitions.add(Definition(names, digest, uses))
        return frozenset(definitions)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The names that imports bind, also inside functions, and the dotted path of what each is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (first, first)


__all__ = ["Definition", "Follow", "Module", "Place", "Sources"]
