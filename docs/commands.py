"""Runs every command and every block of Python of a page, in an empty folder, as a reader would.

    python -m docs.commands smollm2                    # all pages, with the real model
    python -m docs.commands smollm2 README.md          # one page
    python -m docs.commands FOLDER docs/guides/cache.md

The first argument takes the place of ``smollm2`` on the pages. The blocks of a page run one after another in one
folder and one namespace. Set-up that readers need not see stands in a comment of the page, ``<!-- setup`` to ``-->``:
Python, run in its place. Blocks of ``sh`` and ``python`` are run, and ``text`` is what was printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$|"
    r"^<!-- setup\n(?P<hidden>.*?)^-->$", re.M | re.S,
)  # fmt: skip
ELSEWHERE = ("pip install ", "make ", "git clone ", "cd ", "python -m benchmarks", "python -m docs", "python docs/",
             "python benchmarks/", "python examples/")  # fmt: skip
"""Commands that other tests run, or that are for the machine and not for polyad: `make` is what CI calls."""
RUN = ("sh", "python", "setup")


@dataclass(frozen=True)
class Block:
    """A block of a page: its language (``setup`` where it is hidden), its text, and the line at which it stands."""

    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """README and every page of the documentation that is written by hand or kept."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, from its top to its end."""
    for match in BLOCK.finditer(page):
        line = page.count("\n", 0, match.start()) + 1
        if match["hidden"] is not None:
            yield Block("setup", match["hidden"], line)
            continue
        cut = len(match["indent"])
        text = "".join(row[cut:] if row[:cut].isspace() else row for row in match["text"].splitlines(keepends=True))
        yield Block(match["language"], text, line)


def commands(text: str) -> list[list[str]]:
    """The commands of a block of ``sh``, as lists of words; comments and continued lines are understood."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_page(
    page: Path, model: str, call: Callable[[list[str]], None], *, smaller: Mapping[str, str] | None = None
) -> list[tuple[Block, float]]:  # fmt: skip
    """Run every block of a page in the present folder; gives each with its seconds.

    ``call`` runs the words of one command of polyad. ``smaller`` maps texts of the page to what a tiny model can do.
    """
    names: dict[str, Any] = {"__name__": "__page__"}
    timed = []
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language not in RUN:
            continue
        text = block.text
        for before, after in (smaller or {}).items():
            text = text.replace(before, after)
        text = re.sub(r"\bsmollm2\b(?!-)", lambda _: model, text)
        started = time.perf_counter()
        try:
            _run_block(block.language, text, call, names, f"{page.name}:{block.line}")
        except BaseException as error:
            error.add_note(f"{page}, line {block.line}:\n{text}")
            raise
        timed.append((block, time.perf_counter() - started))
    return timed


def _run_block(
    language: str, text: str, call: Callable[[list[str]], None], names: dict[str, Any], title: str
) -> None:  # fmt: skip
    if language != "sh":
        exec(compile(text, title, "exec"), names)
        return
    for words in commands(text):
        if words[0] == "polyad":
            call(words[1:])
        elif not " ".join([*words, ""]).startswith(ELSEWHERE):
            raise ValueError(f"{title}: {words[0]} is not a command that a page may have; there are polyad and "
                             f"those that begin with {', '.join(ELSEWHERE)}")  # fmt: skip


def call_polyad(words: list[str]) -> None:
    """Run one command of polyad in this process; a SystemExit that is no success is raised."""
    from polyad import cli

    before = sys.argv
    sys.argv = ["polyad", *words]
    try:
        cli.main()
    except SystemExit as stopped:
        if stopped.code:
            raise
    finally:
        sys.argv = before


def main(model: str, *names: str) -> None:
    """Run the named pages, or all, each in an empty folder of its own."""
    chosen = [Path(name).resolve() for name in names] or pages()
    model = str(Path(model).resolve()) if Path(model).exists() else model
    for page in chosen:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            for block, seconds in run_page(page, model, call_polyad):
                print(f"{page.relative_to(ROOT)}:{block.line} ({block.language}): {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit((__doc__ or "") + f"\n{os.linesep}name the model")
    main(*sys.argv[1:])
