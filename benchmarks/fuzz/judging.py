"""The verdict on a case: the same, other contents, a sentence of polyad's, raw Python, a hang, or an act outside."""

from __future__ import annotations

import dis
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polyad

ROOT = Path(polyad.__file__).parent
RAISES = {dis.opmap["RAISE_VARARGS"], dis.opmap["RERAISE"]}
VERDICTS = ("same", "other", "refused", "raw", "hang", "outside")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
ACTS = frozenset(
    {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect"}
)
CHANGES = frozenset(
    {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
)


class Hang(BaseException):
    """A case that took longer than it may."""


class Again(Exception):  # noqa: N818 - it is no error
    """What a damaged file of a cache is: made again."""


class Watch:
    """An audit hook that notes what is written outside of a folder, and code or connections that are started."""

    def __init__(self) -> None:
        self.inside: str | None = None
        self.acts: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event in ACTS:
            self.acts.append(f"{event} {arguments!r:.80}")
        elif event == "open":
            path, flags = arguments[0], arguments[2]
            if isinstance(path, str | bytes) and flags and flags & WRITES:
                self._look(event, path)
        elif event in CHANGES and not (isinstance(arguments[-1], int) and arguments[-1] != -1):
            self._look(event, arguments[0])  # others are relative to an open folder, as temporary ones are emptied

    def _look(self, event: str, path: Any) -> None:
        place = str(Path(os.fsdecode(path)).absolute()) if isinstance(path, str | bytes | os.PathLike) else ""
        if place and not place.startswith((self.inside or "", "/dev/", "/proc/self/")):
            self.acts.append(f"{event} {place}")

    @contextmanager
    def over(self, folder: Path) -> Iterator[list[str]]:
        """Note what happens while this runs, but for what stays in a folder."""
        self.acts, self.inside = [], str(folder)
        try:
            yield self.acts
        finally:
            self.inside = None


def judge(read: Callable[[], Any], right: Any, seconds: float, watch: Watch, folder: Path) -> tuple[str, str]:
    """The verdict on one reading, and what was said."""
    clock, acts = time.perf_counter(), []

    def stop(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)  # again, where a handler of everything swallowed it
    try:
        with watch.over(folder) as acts:
            verdict = ("same", "") if read() == right else ("other", "")
    except Hang:
        verdict = ("hang", "")
    except Again as error:
        verdict = ("refused", str(error))
    except BaseException as error:
        verdict = (_kind_of(error), _shown(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if acts:
        return "outside", "; ".join(acts)
    return ("hang", "") if time.perf_counter() - clock > seconds else verdict


def _kind_of(error: BaseException) -> str:
    """Refused, raw, or other where polyad read something else and what follows in the case does not fit it."""
    if is_sentence(error):
        return "refused"
    inside = any(Path(f.filename).is_relative_to(ROOT) for f in traceback.extract_tb(error.__traceback__))
    return "raw" if inside else "other"


def is_sentence(error: BaseException) -> bool:
    """True for an error of the right type with some words, that a ``raise`` of polyad's raised."""
    if not isinstance(error, ValueError | TypeError | OSError | ImportError) or len(str(error).split()) < 5:
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or not Path(last.tb_frame.f_code.co_filename).is_relative_to(ROOT):
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] in RAISES


def _shown(error: BaseException) -> str:
    """The error in a line, with the last places of polyad's that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(ROOT)]
    places = " < ".join(f"{Path(f.filename).relative_to(ROOT)}:{f.lineno}" for f in frames[-2:][::-1])
    return f"{type(error).__name__}: {str(error)[:200]!r} at {places}"
