"""Files and folders that are written beside their place and then moved there, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

LONGEST = 200
"""The longest name of an output, in bytes: names of unfinished work beside it are longer, and 255 is the most."""


def partial_path(target: Path, suffix: str = "partial") -> Path:
    """A hidden name beside ``target`` that no other process or thread has; it states the process."""
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.{suffix}")


def abandoned(target: Path, suffix: str = "partial") -> list[Path]:
    """Left-overs beside ``target`` that ``partial_path`` named in a process that is no more, the latest last."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(\d{{1,9}})\.[0-9a-f]{{8}}\.{suffix}")
    try:
        beside = list(target.parent.iterdir())
    except OSError:
        return []
    dead = [path for path in beside if (m := pattern.fullmatch(path.name)) and not _runs(int(m[1]))]
    return sorted(dead, key=lambda path: path.lstat().st_mtime)


def _runs(process: int) -> bool:
    if os.name != "posix":  # where there is no asking without ending it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def whole_file(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """A path to write a file to, which is moved to ``target`` when all went well.

    Without ``replace`` FileExistsError is raised where something lies at ``target`` by then. Left-overs of processes
    that were killed are removed.
    """
    for path in abandoned(target):
        remove(path)
    partial = partial_path(target)
    try:
        yield partial
        if replace:
            partial.replace(target)
        else:
            _move_to_free(partial, target)
    finally:
        remove(partial)


def _move_to_free(partial: Path, target: Path) -> None:
    try:
        os.link(partial, target)  # fails where a move would replace what another process has put there
    except FileExistsError:
        raise FileExistsError(
            errno.EEXIST, f"{target} was written by another process meanwhile; choose another name"
        ) from None
    except OSError:  # a file system without links
        partial.replace(target)


def check_place(target: Path) -> None:
    """Refuse a place where nothing can be made, before any work: below a file, not writable, a name too long."""
    if target.is_symlink() and not target.exists():
        raise FileNotFoundError(f"{target} is a link to {target.readlink()}, which is not there; remove the link")
    long = len(os.fsencode(target.name))
    if long > LONGEST:
        raise ValueError(f"the name {target.name[:20]}… has {long} bytes; choose one of at most {LONGEST}")
    above = next(parent for parent in target.absolute().parents if os.path.lexists(parent))
    if above.is_symlink() and not above.exists():
        raise FileNotFoundError(f"{above} is a link to {above.readlink()}, which is not there; remove the link")
    if not above.is_dir():
        raise NotADirectoryError(f"{above} is a file, so nothing can be made in it; choose another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"nothing can be written in {above}; choose another place")
