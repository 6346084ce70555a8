"""A folder put in the place of another, and what killed processes left of that."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from polyad._partial import abandoned, partial_path, remove
from polyad._unfinished import is_occupied


def recover(target: Path) -> None:
    """Remove what killed processes left beside ``target``; what one had moved away from there goes back."""
    for path in abandoned(target, "old")[::-1]:
        if os.path.lexists(target):
            remove(path)
        else:
            path.replace(target)  # the kill fell between the two moves of a replacement
    for path in (*abandoned(target), target.with_name(f".{target.name}.partial")):  # the latter is of polyad 0.1.0
        remove(path)


def swap(partial: Path, target: Path, replace: bool) -> None:
    """Put ``partial`` in the place of ``target``; what is to be replaced is moved aside first and removed last."""
    old = partial_path(target, "old")
    if replace and target.exists():
        target.replace(old)
    elif not is_occupied(target) and target.is_dir():
        target.rmdir()
    try:
        partial.replace(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.replace(target)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(
                error.errno, f"{target} was written by another process meanwhile; choose another folder"
            ) from None
        raise
    finally:
        if target.exists():
            remove(old)
