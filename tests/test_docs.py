"""The documentation keeps up with the catalogue."""

import importlib.util
from pathlib import Path

import polyad

DOCS = Path(__file__).parent.parent / "docs"


def pages():
    spec = importlib.util.spec_from_file_location("pages", DOCS / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


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
