"""Memory that a process holds and no longer uses."""

from __future__ import annotations

import contextlib
import ctypes


def return_memory() -> None:
    """Let the C library return freed memory to the system; glibc keeps what measuring took, more than a small model.

    >>> return_memory()
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
