"""The documentation keeps up with the catalogue and with the kept results."""

import importlib.util
import json
import re
import sys
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
    sys.path.insert(0, str(DOCS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DOCS))
    return module


def test_every_method_has_a_page_that_says_when_to_use_it_and_how_it_is_called():
    when = imported("when").WHEN
    cards = polyad.methods()
    assert set(when) <= {card.name for card in cards}, "docs/when.py names methods that there are not"
    builder = imported("pages")
    pages = builder.pages(when)
    assert set(pages) == {card.name for card in cards}
    for card in cards:
        page = pages[card.name]
        assert f"{card.function.__name__}(" in page
        assert (when.get(card.name) or builder.KINDS[card.kind][1]) in page
        assert all(paper.source.partition(":")[2] in page for paper in card.papers)
        assert ("What to use instead" in page) == bool(card.instead)
        assert f"from {'.'.join(card.module.split('.')[:2])} import {card.function.__name__}" in page


def test_the_import_that_a_page_shows_works():
    for page in imported("pages").pages().values():
        exec(re.search(r"^from polyad.*$", page, re.M)[0], {})


def test_every_claim_stands_on_the_pages_of_its_methods():
    pages, kept = imported("pages").pages(), {result.handle: result for result in results()}
    for card in polyad.methods():
        for line in (line for handle in card.handles if handle in kept for line in kept[handle].lines):
            assert f"Verdict: {line.verdict}" in pages[card.name]
            assert f"Measured: {line.figure:.4g}" in pages[card.name]


def test_the_gallery_leads_to_every_page():
    gallery = imported("pages").gallery(polyad.methods())
    assert all(f"]({card.name}.md)" in gallery for card in polyad.methods())


def test_pictures_of_the_guides_are_of_the_kept_results():
    pictures = imported("guide_pictures")
    for name, draw in pictures.PICTURES.items():
        kept = (DOCS / "guides" / f"{name}.svg").read_text(encoding="utf-8")
        assert kept == draw(), f"docs/guides/{name}.svg is of older results: run make docs"


def test_what_markdown_would_read_is_escaped():
    pages = imported("pages")
    assert pages.plain("``a_b`` and a_b*c [x] <y>") == "`a_b` and a\\_b\\*c \\[x\\] \\<y>"
    assert imported("fences").fence("words\n\n>>> 1 + 1\n2") == "words\n\n```pycon\n>>> 1 + 1\n2\n```"


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
    shown = pages.pages()
    names = {handle: card.name for card in polyad.methods() for handle in card.handles}
    assert all("(code changed since)" in shown[names[kept.handle]] for kept in changed[:2])


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
    assert (
        "**Claim `eora`:** a second assertion.\n\nMeasured: 0.5 ± 0.1 >= 2. Verdict: fails. Over 6 windows. " in page
    )
    assert "Rival: svd. Control: noise." in page
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
