"""Commands that were stopped: their work beside the output, and a lock on it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyad._partial import check_place, remove, whole_file

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

ASKED, EARLIER = "asked.json", "earlier"


@dataclass(frozen=True)
class Work:
    """The work of a command that makes ``target``: ``folder``, beside it, is there until the command is done."""

    target: Path
    folder: Path

    def set_aside(self) -> None:
        """Move away what a stopped run of the same command has put at the target, to be made again."""
        earlier = self.folder / EARLIER
        if is_occupied(self.target):
            remove(earlier)
            self.target.replace(earlier)

    def bring_back(self) -> None:
        """Give the target those files of what was set aside that it does not have: they are the user's own."""
        earlier = self.folder / EARLIER
        for path in earlier.iterdir() if earlier.is_dir() and self.target.is_dir() else ():
            if not os.path.lexists(self.target / path.name) and path.suffix != ".partial":
                path.replace(self.target / path.name)


def is_occupied(target: Path) -> bool:
    """True where a file lies at a path, or a folder that is not empty."""
    return target.is_file() or (target.is_dir() and any(target.iterdir()))


def was_stopped(target: Path) -> bool:
    """True where a command that makes ``target`` was stopped before it was done."""
    return (work_folder(target) / ASKED).is_file()


def state_file(target: Path) -> Path:
    """The file beside ``target`` in which the state of a training that makes it is kept."""
    return target.absolute().with_name(f".{target.absolute().name}.state")


def work_folder(target: Path) -> Path:
    """The folder beside ``target`` that holds the work of a command that was stopped."""
    return target.absolute().with_name(f".{target.absolute().name}.work")


@contextlib.contextmanager
def unfinished(target: Path, asked: Any) -> Iterator[Work]:
    """The work of a command that makes ``target``, removed when it is done; ``asked``, JSON, says what it is.

    What lies at ``target`` is refused unless the same command was stopped after it had written it. A second process
    with the same target is refused.
    """
    target = target.expanduser()
    check_place(target)
    text = json.dumps(asked, sort_keys=True, default=str)
    folder = work_folder(target)
    if is_occupied(target) and not was_stopped(target):
        remove_rest(target)
        _refuse(target)
    with lock(target, wait=False):
        same = _text(folder / ASKED) == text
        if is_occupied(target) and not same:
            _refuse(target)
        folder.mkdir(exist_ok=True)
        if not same:
            with whole_file(folder / ASKED) as partial:
                partial.write_text(text, encoding="utf-8")
        try:
            yield Work(target, folder)
        except BaseException:
            if not is_occupied(target) and all(path.name == ASKED for path in folder.iterdir()):
                remove(folder)  # nothing to go on from
            raise
        (folder / ASKED).unlink(missing_ok=True)  # first: what follows may be stopped
        remove(folder)


def remove_rest(target: Path) -> None:
    """Remove what a command left that was killed when it was all but done."""
    if work_folder(target).is_dir() or _lock_file(target).exists():
        with lock(target, wait=False):
            remove(work_folder(target))


def _lock_file(target: Path) -> Path:
    return target.absolute().with_name(f".{target.absolute().name}.lock")


def _refuse(target: Path) -> None:
    raise FileExistsError(f"{target} already holds something; choose another folder or remove it first")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def lock(target: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes from doing the same work; the system ends the lock of a process that was killed.

    Without ``wait`` a second process is refused.
    """
    if fcntl is None:
        yield
        return
    path = _lock_file(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            if not wait:
                raise FileExistsError(
                    f"another process is at work on {target}; wait until it is done, or choose another place"
                ) from None
            time.sleep(0.1)
            continue
        if _is_file_of(handle, path):
            break
        os.close(handle)  # the process before has removed the file that this lock is on
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _is_file_of(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False
