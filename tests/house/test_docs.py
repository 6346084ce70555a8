"""The documentation keeps up with the catalogue and with the kept results."""

import importlib.util
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

import polyad
from polyad.claims import results

DOCS = Path(__file__).parents[2] / "docs"


def imported(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_handle_has_a_page_with_its_methods_and_its_verdicts():
    pages = imported("pages").pages()
    for card in polyad.methods():
        for handle in card.handles:
            assert f"{card.name}(" in pages[handle]
    for kept in results():
        for line in kept.lines:
            assert f"Verdict: {line.verdict}" in pages[kept.handle]


def test_the_table_of_methods_is_what_the_catalogue_and_the_results_say():
    pages = imported("pages")
    rows = pages.table().splitlines()
    for card in polyad.methods():
        assert any(f"| `{card.name}` |" in row for row in rows)
    written = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert written == pages.table(), "docs/methods.md is not what the catalogue and the results say: run make docs"


def test_code_that_changes_leaves_the_table_of_methods_as_it_is():
    pages = imported("pages")
    before = pages.table()
    changed = [replace(kept, lines=[replace(line, changed_since=True) for line in kept.lines]) for kept in results()]
    pages.results = lambda: changed
    assert pages.table() == before
    assert all("(code changed since)" in pages.pages()[kept.handle] for kept in changed[:2])


def test_a_page_says_all_lines_of_a_claim_and_the_table_too():
    pages = imported("pages")
    kept = next(kept for kept in results() if kept.handle == "eora")
    second = replace(
        kept.lines[0],
        assertion="a second assertion",
        figure=0.5,
        error=0.1,
        windows=6,
        control="noise",
        rival="svd",
        changed_since=False,
    )
    pages.results = lambda: [replace(kept, lines=[*kept.lines, second])]
    page = pages.pages()["eora"]
    assert "a second assertion.\n\nMeasured: 0.5 ± 0.1 >= 2. Verdict: fails. Over 6 windows. Rival: svd. " in page
    assert "| `eora` | holds; fails | 3.197 >= 2; 0.5 ± 0.1 >= 2 |" in pages.table()


def test_classes_state_the_best_of_the_learning_rates_that_were_tried():
    tables = imported("tables")
    runs = defaultdict(lambda: defaultdict(list))
    for record in json.loads((tables.RESULTS / "finetune.json").read_text()):
        runs[record["spelled"]][record["learning_rate"]].append(record)
    for name, rates in runs.items():
        method = polyad.card(name.partition(":")[0]).function
        assert method.learning_rate == tables.best_rate(rates), name


@pytest.mark.parametrize("name", ["adapters-measured.md", "exports-measured.md"])
def test_pages_of_measurements_are_what_the_results_say(name):
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == imported("tables").PAGES[name](), f"docs/{name} is of older results: run make docs"
