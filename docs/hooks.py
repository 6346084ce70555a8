"""Hooks of mkdocs: the pages that are built and not committed, and where they stand among the others.

A page for every method (docs/pages.py) with its picture (docs/drawings.py), the gallery of them, and a page of the
API for every public package, which mkdocstrings fills from its docstrings.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import drawings
import pages
import when
from mkdocs.structure.files import File, Files

import polyad

PACKAGES = {
    "polyad": "The front door: load, plan, apply, save, evaluate, generate.",
    "polyad.formats": "Tensors stored as something smaller than themselves, and their arithmetic.",
    "polyad.decompose": "Decompositions of matrices and tensors.",
    "polyad.quantize": "Numbers in few bits.",
    "polyad.compress": "Making a trained model smaller.",
    "polyad.allocate": "One budget over many layers.",
    "polyad.models": "Loading, saving, and changing models.",
    "polyad.adapters": "Adapters, their host and operations.",
    "polyad.adapters.training": "Training adapters.",
    "polyad.cache": "Caches of keys and values.",
    "polyad.decode": "Decoding in a loop of its own.",
    "polyad.attention": "Attention of another form.",
    "polyad.optim": "Optimisers with small states.",
    "polyad.train": "A plain training loop.",
    "polyad.export": "Models for other engines.",
    "polyad.data": "Texts and windows.",
    "polyad.evaluation": "What is measured, and how.",
    "polyad.layers": "Modules that hold formats.",
    "polyad.linalg": "Algebra that several methods use.",
    "polyad.algorithms": "Numerical algebra that stands alone.",
    "polyad.einsum": "Tensor expressions and their cost.",
    "polyad.statistics": "What is known of a layer's inputs.",
    "polyad.interop.peft": "Folders of peft's.",
    "polyad.interop.tensorly": "Tensors of TensorLy's.",
    "polyad.interop.quimb": "Tensors of quimb's.",
    "polyad.interop.linear_operator": "Operators of linear_operator's.",
    "polyad.report": "Pages of results.",
    "polyad.claims": "What papers assert, measured.",
    "polyad.testing": "The contracts of methods.",
}


def on_config(config: Any) -> Any:
    """The gallery and the API have their places in the navigation."""
    cards = polyad.methods()
    kinds: list[Any] = ["methods/index.md"]
    for kind, (title, _) in pages.KINDS.items():
        names = [{card.name: f"methods/{card.name}.md"} for card in cards if card.kind == kind]
        kinds += [{title: names}] if names else []
    reference: list[Any] = ["api/index.md", *({name: f"api/{name}.md"} for name in PACKAGES)]
    for entry in config.nav:
        for title in ({"Methods", "API"} & set(entry)) if isinstance(entry, dict) else ():
            entry[title] = kinds if title == "Methods" else reference
    return config


def on_files(files: Files, config: Any) -> Files:
    """Every page that is built."""
    cards = polyad.methods()
    texts = {f"methods/{name}.md": text for name, text in pages.pages(when.WHEN, drawings.pictures(cards)).items()}
    texts["methods/index.md"] = pages.gallery(cards)
    texts |= {f"api/{name}.md": reference(name) for name in PACKAGES}
    rows = "\n".join(f"| [{name}]({name}.md) | {words} |" for name, words in PACKAGES.items())
    texts["api/index.md"] = f"# API\n\n| package | what it holds |\n| --- | --- |\n{rows}\n"
    for path, text in texts.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """In the site the names in the table of methods lead to their pages."""
    if page.file.src_path != "methods.md":
        return markdown
    return re.sub(r"\| `(\w+)` \|", r"| [\1](methods/\1.md) |", markdown)


def reference(name: str) -> str:
    """The page of one package: its first words, and every public name with its docstring."""
    package = import_module(name)
    members = sorted(getattr(package, "__all__", None) or _defined(package))
    listed = "".join(f"\n        - {member}" for member in members)
    return f"# {name}\n\n{PACKAGES[name]}\n\n::: {name}\n    options:\n      members:{listed}\n"


def _defined(module: Any) -> list[str]:
    """The public functions and classes that a module without ``__all__`` defines."""
    return [
        n
        for n, v in vars(module).items()
        if not n.startswith("_") and getattr(v, "__module__", "") == module.__name__
    ]
