"""The cases of the fuzz, one after the other, in child processes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from benchmarks.fuzz.judging import VERDICTS, Watch, judge
from benchmarks.fuzz.mutations import mutate_file, mutate_text
from benchmarks.fuzz.seeds import Seed, seeds

SEAL = re.compile(rb',\s*"checksum": "[0-9a-f]*"')
BLOCK = 500
"""Cases of one child process."""
SLOW = ("checkpoint", "finetuning", "folder", "gguf", "healing", "learning")
"""Kinds that take a tenth of a second to read: a quarter as many cases of them."""
BYTES = 8 * 2**30
"""The address space that a child may take beyond what it has."""


class Fuzz:
    """Seeds in a folder of their own, and what each gives when it is whole."""

    def __init__(self, seconds: float, kinds: tuple[str, ...] = ()) -> None:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        sys.dont_write_bytecode = True
        self.seconds = seconds
        self.place = Path(tempfile.mkdtemp(prefix="polyad-fuzz-")).resolve()
        self.seeds = [seed for seed in seeds(self.place / "seeds") if not kinds or seed.kind in kinds]
        every = sorted({seed.kind for seed in self.seeds})
        self.kinds = [kind for kind in every for _ in range(1 if kind in SLOW else 4)]
        self.watch = Watch()
        self.whole: dict[str, Any] = {}

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.place, ignore_errors=True)

    def case(self, number: int) -> tuple[Seed, random.Random]:
        """The seed of a case, the kinds in turn, and its draws."""
        kind = self.kinds[number % len(self.kinds)]
        each = [seed for seed in self.seeds if seed.kind == kind]
        return each[number // len(self.kinds) % len(each)], random.Random(number)

    def prepare(self, seed: Seed, draw: random.Random | None) -> Path:
        """A copy of a seed in the case's folder, damaged where there are draws."""
        folder = self.place / "case" / seed.folder.name
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(seed.folder, folder)
        if draw is not None:
            file = folder / draw.choice(seed.files)
            before = file.read_bytes()
            if file.suffix == ".method":
                file.write_text(mutate_text(before.decode(), draw), encoding="utf-8", errors="replace")
            else:
                mutate_file(file, draw)
            if draw.random() < 0.6:
                _forge(folder, file, before)
        return folder

    def run(self, seed: Seed, draw: random.Random, times: int = 1) -> tuple[str, str]:
        """The verdict on one case, within so many times the limit."""
        if seed.name not in self.whole:
            self.whole[seed.name] = seed.read(self.prepare(seed, None))
        folder = self.prepare(seed, draw)
        tempfile.tempdir = str(folder.parent)
        os.environ["POLYAD_CACHE"] = str(folder.parent / "cache")
        with (
            Path(os.devnull).open("w") as nothing,
            contextlib.redirect_stderr(nothing),
            contextlib.redirect_stdout(nothing),
        ):
            return judge(
                lambda: seed.read(folder), self.whole[seed.name], self.seconds * times, self.watch, folder.parent
            )

    def one_again(self, name: str, number: int) -> Any:
        """One case, with its traceback."""
        seed = next(seed for seed in self.seeds if seed.name == name)
        return seed.read(self.prepare(seed, random.Random(number)))

    def run_all(self, cases: int, store: Path, again: bool) -> dict[str, Any]:
        """Run the cases that are not stored yet, and store them block by block."""
        stored: dict[str, Any] = {"done": 0, "counts": {}, "bad": []}
        if store.is_file() and not again:
            stored = json.loads(store.read_text(encoding="utf-8"))
        self._judge_again(stored)
        while stored["done"] < cases:
            last = min(stored["done"] + BLOCK, cases)
            for number, seed, verdict, said in self._block(stored["done"], last):
                _count(stored, number, seed, verdict, said)
                stored["done"] = number + 1
            partial = store.with_suffix(".partial")
            partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
            partial.replace(store)
        return stored

    def _judge_again(self, stored: dict[str, Any]) -> None:
        """Run what was bad once more, as the code is now, and count it by what it gives."""
        kinds = {seed.name: seed.kind for seed in self.seeds}
        before, stored["bad"] = stored["bad"], []
        for name, number, verdict, _ in before:
            stored["counts"][kinds[name]][verdict] -= 1
            for again in self._block(number, number + 1):
                _count(stored, *again)

    def _block(self, first: int, last: int) -> list[tuple[int, Seed, str, str]]:
        """Run some cases in a child; one at which it dies, or hangs for good, is counted as a hang."""
        log = self.place / "log"
        log.write_text("")
        child = os.fork()
        if child == 0:
            try:
                self._child(first, last, log)
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        size, since = 0, time.monotonic()
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.02)
            if log.stat().st_size != size:
                size, since = log.stat().st_size, time.monotonic()
            if time.monotonic() - since > 6 * self.seconds:
                os.kill(child, signal.SIGKILL)
        done = [json.loads(line) for line in log.read_text().splitlines()]
        results = [(number, self.case(number)[0], verdict, said) for number, verdict, said in done]
        if len(done) < last - first:
            number = first + len(done)
            results.append((number, self.case(number)[0], "hang", "the process died, or could not be stopped"))
        return results

    def _child(self, first: int, last: int, log: Path) -> None:
        with Path("/proc/self/statm").open() as statm:
            taken = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))
        with log.open("a", encoding="utf-8", buffering=1) as lines:
            for number in range(first, last):
                verdict, said = self.run(*self.case(number))
                if verdict == "hang":  # on a busy machine it may only have waited
                    verdict, said = self.run(*self.case(number), times=3)
                lines.write(json.dumps([number, verdict, said]) + "\n")


def _count(stored: dict[str, Any], number: int, seed: Seed, verdict: str, said: str) -> None:
    """Add a case to the counts, and to those that are bad where it is."""
    stored["counts"].setdefault(seed.kind, dict.fromkeys(VERDICTS, 0))[verdict] += 1
    if verdict in VERDICTS[3:]:
        stored["bad"].append([seed.name, number, verdict, said])


def _forge(folder: Path, file: Path, before: bytes) -> None:
    """Put the damaged file's sha256 where a manifest states that of the whole one, and take away the manifest's own
    checksum, so that it is read on."""
    import hashlib

    old, new = (hashlib.sha256(content).hexdigest() for content in (before, file.read_bytes()))
    for manifest in folder.rglob("polyad.json"):
        content = manifest.read_bytes()
        manifest.write_bytes(SEAL.sub(b"", content.replace(old.encode(), new.encode())))


def show(stored: dict[str, Any]) -> None:
    """Print the counts by kind, and what was bad."""
    print(f"{'':14}" + "".join(f"{verdict:>9}" for verdict in VERDICTS))
    total = dict.fromkeys(VERDICTS, 0)
    for kind, counts in sorted(stored["counts"].items()):
        print(f"{kind:14}" + "".join(f"{counts[verdict]:9,}" for verdict in VERDICTS))
        total = {verdict: total[verdict] + counts[verdict] for verdict in VERDICTS}
    print(f"{'all':14}" + "".join(f"{total[verdict]:9,}" for verdict in VERDICTS))
    reasons: dict[str, list[Any]] = {}
    for name, number, verdict, said in stored["bad"]:
        reasons.setdefault(f"{verdict}: {said.split(' at ')[-1][:80] or name} {said[:110]}", []).append(
            (name, number)
        )
    for reason, cases in sorted(reasons.items(), key=lambda pair: -len(pair[1]))[:60]:
        print(f"{len(cases):5} {reason}  e.g. {cases[0][0]} {cases[0][1]}")
