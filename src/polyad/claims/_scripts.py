"""The scripts of all claims, and the code that each of them measures."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from types import ModuleType

from polyad.claims.definitions import Place, Sources

FOLDER = Path(__file__).parent
SCRIPTS: dict[str, str] = {
    file.stem.replace("_", "-"): f"polyad.claims.{file.parent.name}.{file.stem}"
    for file in sorted(FOLDER.glob("*/[!_]*.py"), key=lambda file: file.stem)
}
"""The module of every claim by handle: a script lies in its family's folder and has its paper's handle for a name."""


def import_script(handle: str) -> ModuleType:
    """Import the script of a claim."""
    if handle not in SCRIPTS:
        raise ValueError(f"there is no claim {handle!r}; there are {', '.join(sorted(SCRIPTS))}")
    return import_module(SCRIPTS[handle])


def measured_definitions(handle: str) -> list[str]:
    """The labels of what defines a claim and the methods whose cards carry its handle.

    These are ``claim`` and the methods themselves, and what they use of their own files, of each other's, and of
    private modules of their packages. What lies further away (hosts, formats, other methods) does not count.
    """
    return labels(_sources(), SCRIPTS[handle], _methods().get(handle, []))


def changed_definitions(handle: str, labels: Collection[str]) -> list[str]:
    """The names of those measured definitions that a claim and its methods no longer rest on as they were.

    The files in which they stand do not matter, nor does whether these are private.
    """
    names = {name for label in labels for name in label.partition(" ")[0].split(",")}
    roots = [(SCRIPTS[handle], "claim"), *_methods().get(handle, [])]
    now = {definition.label for definition in _sources().reachable(roots, lambda _, place: place[1] in names)}
    return sorted({label.partition(" ")[0] for label in labels if label not in now})


def labels(sources: Sources, script: str, methods: list[Place]) -> list[str]:
    """The labels of what defines the claim of a module and these methods."""
    roots = [(script, "claim"), *methods]
    files = {module for module, _ in roots}

    def counts(user: str, place: Place) -> bool:
        module = place[0].split(".")
        private = any(part.startswith("_") for part in module[2:])
        return place[0] in files or (private and user.split(".")[1] == module[1])

    return sorted({definition.label for definition in sources.reachable(roots, counts)})


def commit_of_checkout() -> str | None:
    """The commit of the checkout that polyad runs from; None where it runs from none."""
    git = ["git", "-C", str(FOLDER)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], check=True, capture_output=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def _sources() -> Sources:
    return Sources({"polyad": FOLDER.parent})


@functools.cache
def _methods() -> dict[str, list[Place]]:
    """The methods of every handle."""
    import polyad

    places: dict[str, list[Place]] = {}
    for card in polyad.methods():
        for handle in card.handles:
            places.setdefault(handle, []).append((card.module, card.function.__name__))
    return places
