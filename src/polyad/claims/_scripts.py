"""The scripts of all claims, and the code that each of them measures."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Collection, Sequence
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
    """The labels of what defines a claim and the methods whose cards carry its handle."""
    return definition_labels(_sources(), _roots(handle))


def changed_definitions(handle: str, labels: Collection[str]) -> list[str]:
    """The names of those measured definitions that a claim and its methods no longer rest on as they were."""
    return lost_names(_sources(), _roots(handle), labels)


def definition_labels(sources: Sources, roots: Sequence[Place]) -> list[str]:
    """The labels of what defines ``roots``: a claim and its methods.

    These are the roots themselves, and what they use of their own files, of each other's, and of private modules of
    their packages. What lies further away (hosts, formats, other methods) does not count.
    """
    files = {module for module, _ in roots}

    def counts(user: str, used: str) -> bool:
        private = any(part.startswith("_") for part in used.split(".")[2:])
        return used in files or (private and user.split(".")[1] == used.split(".")[1])

    return sorted({definition.label for definition in sources.reachable(roots, counts)})


def lost_names(sources: Sources, roots: Sequence[Place], labels: Collection[str]) -> list[str]:
    """The names in those labels that no definition has any more which ``roots`` rest on.

    The files in which definitions stand do not matter, nor does whether these are private.
    """
    names = {name for label in labels for name in label.partition(" ")[0].split(",")}
    present = {definition.label for definition in sources.reachable(roots, names=names)}
    return sorted({label.partition(" ")[0] for label in labels if label not in present})


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


def _roots(handle: str) -> list[Place]:
    """The claim and its methods."""
    return [(SCRIPTS[handle], "claim"), *_methods().get(handle, [])]


@functools.cache
def _methods() -> dict[str, list[Place]]:
    """The methods of every handle."""
    import polyad

    places: dict[str, list[Place]] = {}
    for card in polyad.methods():
        for handle in card.handles:
            places.setdefault(handle, []).append((card.module, card.function.__name__))
    return places
