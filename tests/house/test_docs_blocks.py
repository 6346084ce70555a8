"""Every block and command of README and the documentation runs in an empty folder, on a tiny model."""

import contextlib
import importlib
import re
import shlex
import sys
from pathlib import Path

import peft
import pytest
import tensorly
import tensorly.cp_tensor
import tensorly.decomposition
import tensorly.tt_tensor
import tensorly.tucker_tensor
import typer

import polyad
from polyad import cli

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
commands = importlib.import_module("docs.commands")
sys.path.remove(str(ROOT))

PAGES = [
    page for page in commands.pages() if any(b.language in commands.RUN for b in commands.blocks(page.read_text()))
]
SMALLER = {"--rank 192": "--rank 8", "--heal 100": "--heal 1", "--context 1024": "--context 32",
           "--keep 0.9,0.8": "--keep 0.9", "eora:rank=32": "eora:rank=4",
           "partial(eora, rank=32)": "partial(eora, rank=4)", "max_iter=200": "max_iter=20",
           "max_iter=60": "max_iter=10", "max_iter=100": "max_iter=10"}  # fmt: skip
"""Numbers of the pages beside those with which a tiny model, and a test, have enough."""
FEW = {
    "compress": {"--windows": "1", "--alternations": "0", "--calibration-windows": "2"},
    "compare": {"--windows": "1", "--calibration-windows": "2"},
    "cache": {"--windows": "1", "--alternations": "0", "--calibration-windows": "2", "--scored": "4"},
    "convert": {"--calibration-windows": "2"},
    "adapt": {"--windows": "1", "--length": "32", "--steps": "2"},
    "evaluate": {"--windows": "1"},
    "generate": {"--tokens": "4"},
}  # fmt: skip
"""Options of commands that a test runs with less of, whatever the page says."""


def run_few(words):
    for option, value in FEW.get(words[0], {}).items():
        if option in words:
            place = words.index(option)
            words = [*words[:place], *words[place + 2 :]]
        words = [*words, option, value]
    commands.call_polyad(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page, tiny_folder, own_cache, tmp_path, capsys):
    place = tmp_path / "empty"
    place.mkdir()
    with contextlib.chdir(place):
        commands.run_page(page, str(tiny_folder), run_few, smaller=SMALLER)


def test_what_is_run_is_what_looks_like_it():
    for page in commands.pages():
        for block in commands.blocks(page.read_text(encoding="utf-8")):
            assert block.language in (*commands.RUN, "text", "json"), f"{page}:{block.line} says {block.language!r}"
            if block.language == "text":
                assert not re.search(r"^(polyad \w|import |from \w+ import)", block.text, re.M), (
                    f"{page}:{block.line}"
                )


def test_commands_within_sentences_name_what_there_is():
    command = typer.main.get_command(cli.app)
    seen = 0
    for page in commands.pages():
        prose = commands.BLOCK.sub("", page.read_text(encoding="utf-8"))
        for text in re.findall(r"`polyad ([a-z][^`]*)`", prose):
            words = shlex.split(text.replace("…", ""))
            assert words[0] in command.commands, f"{page}: polyad {text}"
            options = {name for p in command.commands[words[0]].params for name in (*p.opts, *p.secondary_opts)}
            assert {w for w in words if w.startswith("--")} <= {*options, "--help"}, f"{page}: polyad {text}"
            seen += 1
    assert seen > 20


def public_names():
    """Every public name of polyad's packages, methods of its main classes included."""
    packages = (
        "adapters",
        "cache",
        "compress",
        "decompose",
        "quantize",
        "formats",
        "interop.peft",
        "interop.tensorly",
    )
    names = {name for package in packages for name in importlib.import_module(f"polyad.{package}").__all__}
    classes = (polyad.adapters.Adapters, polyad.formats.Format)
    return names | set(polyad.__all__) | {f"{c.__name__}.{n}" for c in classes for n in dir(c)}


def rows(section):
    page = (ROOT / "docs" / "guides" / "coming.md").read_text(encoding="utf-8")
    text = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    found = [row.strip("|").split("|") for row in text.splitlines() if row.startswith("| ")][2:]
    assert found, section
    return text, [[cell.strip() for cell in row] for row in found]


def names_in(text):
    """The names in the code of a cell, without arguments and without what is typed on a command line."""
    spans = [span for span in re.findall(r"`([^`]+)`", text) if not re.match(r"polyad |--|\w+=|\w+:|[^A-Za-z]", span)]
    return [match[0] for span in spans if (match := re.match(r"[A-Za-z][\w.]*", span))]


@pytest.mark.parametrize("section", ["peft", "TensorLy", "kvpress", "llm-compressor"])
def test_what_has_another_name_here_has_it(section):
    there = public_names()
    for left, here, _ in rows(section)[1]:
        for name in names_in(here):
            if name not in ("keep", "past_key_values"):
                assert name in there, f"{left}: {name} is no public name"


def test_names_of_peft_and_tensorly_are_theirs():
    places = (tensorly, tensorly.decomposition, tensorly.cp_tensor, tensorly.tucker_tensor, tensorly.tt_tensor)
    theirs = {
        "peft": {*dir(peft), *dir(peft.PeftModel), *dir(peft.LoraModel), *peft.LoraConfig.__dataclass_fields__},
        "TensorLy": {name for place in places for name in dir(place)} | {"tl.set_backend"},
    }
    for section, names in theirs.items():
        text, table = rows(section)
        absent = re.search(r"Not here: (.*?)\.(\s|$)", text, re.S)[1]
        for name in [n for row in table for n in names_in(row[0])] + names_in(absent):
            assert {name, name.rpartition(".")[2]} & names, f"{section} has no {name}"
