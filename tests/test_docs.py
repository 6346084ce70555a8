"""The documentation keeps up with the catalogue."""

import importlib.util
import json
from collections import defaultdict
from pathlib import Path

import polyad
from polyad.adapters.host import build as making
from polyad.adapters.host.spelled import method_of

DOCS = Path(__file__).parent.parent / "docs"


def opened(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages():
    return opened("pages").pages()


def test_every_handle_has_a_page_that_names_its_methods():
    for card in polyad.methods():
        for handle in card.handles:
            text = (DOCS / "methods" / f"{handle}.md").read_text(encoding="utf-8")
            assert card.name in text, f"docs/methods/{handle}.md does not name {card.name}: run make docs"


def test_the_index_is_what_the_catalogue_says():
    written = (DOCS / "methods" / "README.md").read_text(encoding="utf-8")
    for line in pages()["README"].splitlines():
        name = line.split("|")[1].strip() if line.startswith("|") else ""
        assert name in written, f"docs/methods/README.md misses {name}: run make docs"


def test_classes_state_the_best_of_the_learning_rates_that_were_tried():
    tables = opened("tables")
    runs = defaultdict(lambda: defaultdict(list))
    for record in json.loads((tables.RESULTS / "finetune.json").read_text()):
        runs[record["spelled"]][record["learning_rate"]].append(record)
    assert len(runs) == len(polyad.methods("adapter"))
    for name, rates in runs.items():
        assert making.opened(method_of(name), {})[0].learning_rate == tables.best_rate(rates), name


def test_the_page_of_measured_adapters_is_what_the_results_say():
    written = (DOCS / "adapters-measured.md").read_text(encoding="utf-8")
    assert written == opened("tables").page(), "docs/adapters-measured.md is of older results: run make docs"
