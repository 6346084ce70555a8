"""The card of a saved model or adapter: README.md with front matter, as hubs of models read it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyad._partial import whole_file
from polyad._stated import read_stated

CARD, BASE_CARD = "README.md", "README.base.md"
"""The card that is written, and the base's own, which is kept beside it as it came."""
BUILT_IN: Mapping[str, tuple[str, str]] = {"smollm2": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
"""The hub name and the licence of models that come with polyad, by the name that loads them."""
KEPT = ("license", "license_name", "license_link", "language", "pipeline_tag")
"""Keys that the front matter takes over from the base's."""


def keep_base_card(beside: Path | None, folder: Path) -> None:
    """Copy the base's card into a new folder under a name of its own, so that none is written over."""
    if beside is not None and (beside / CARD).is_file():
        shutil.copyfile(beside / CARD, folder / BASE_CARD)


def write_card(
    folder: Path,
    stated: Mapping[str, Any],
    *,
    name: str | None = None,
    figures: Sequence[Sequence[str]] = (),
    command: str | None = None,
) -> Path:
    """Write the card of a folder of which ``stated`` is the polyad.json, and return its path.

    ``figures`` is a table, its first row the heads; ``command`` what made the folder; ``name`` the folder's own.
    """
    name = folder.absolute().name if name is None else name
    base, licence = _base_of(
        str((stated["model"] if stated["kind"] == "adapter" else stated["base"].get("name")) or "")
    )
    if stated["kind"] == "adapter":
        tag, library = "adapter", "polyad"
    else:
        tag, library = "compressed" if stated["recipe"] else "saved", "transformers" if stated["plain"] else "polyad"
    body = [_sentence(stated, base), "", "## Load it", "", "```python", *_loading(stated, name), "```", ""]
    return _write(folder, name, base, licence, (library, tag), [*body, *_table(figures), *_made_by(command)])


def write_export_card(
    folder: Path, model: str, beside: Path | None, format: str, checked: Mapping[str, Any], command: str
) -> Path:
    """Write the card of a folder that holds a model for another engine; ``checked`` is what was compared there."""
    keep_base_card(beside, folder)
    base, licence = _base_of(model)
    figures = [["checked", "value"], *([key.replace("_", " "), str(value)] for key, value in checked.items())]
    body = [f"`{base}` in the format {format}.", "", *_table(figures if checked else ()), *_made_by(command)]
    return _write(folder, folder.absolute().name, base, licence, (format, "exported"), body)


def _write(
    folder: Path, name: str, base: str, licence: str | None, kind: tuple[str, str], body: Sequence[str]
) -> Path:
    """Write a card: its front matter, its title, what is said, and the licence."""
    matter = _front_matter(folder / BASE_CARD)
    if licence is not None and "license" not in matter:
        matter["license"] = [f"license: {licence}"]
    lines = ["---", *([f"base_model: {base}"] if _is_hub_name(base) else [])]
    lines += [line for key in matter for line in matter[key]]
    lines += [f"library_name: {kind[0]}", "tags:", "- polyad", f"- {kind[1]}", "---", "", f"# {name}", ""]
    with whole_file(folder / CARD) as partial:
        partial.write_text("\n".join([*lines, *body, _licence_line(matter, folder)]) + "\n", encoding="utf-8")
    return folder / CARD


def read_manifest(folder: Path) -> dict[str, Any]:
    """The statements in the polyad.json of a folder that polyad wrote."""
    return read_stated(folder / "polyad.json", dict[str, Any])


def _base_of(name: str) -> tuple[str, str | None]:
    """The model that was changed, as others know it, and its licence where polyad knows it itself."""
    shown = Path(name).name if os.path.lexists(name) else name  # a path is of use here alone
    return BUILT_IN.get(name, (shown, None))


def _made_by(command: str | None) -> list[str]:
    return ["## Made by", "", "```sh", command, "```", ""] if command else []


def _is_hub_name(name: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not os.path.lexists(name)


def _front_matter(card: Path) -> dict[str, list[str]]:
    """The lines of those keys of a card's front matter that are taken over, by key."""
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    block = re.match(r"---\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    taken: dict[str, list[str]] = {}
    key = ""
    for line in block[1].splitlines() if block else ():
        head = re.match(r"([\w-]+):", line)
        key = head[1] if head else key
        if key in KEPT:
            taken.setdefault(key, []).append(line)
    return taken


def _sentence(stated: Mapping[str, Any], base: str) -> str:
    """The line that says what was done to what."""
    of = f"`{base}`" if base else f"a {stated['kind']}"
    if stated["kind"] == "adapter":
        names = list(stated.get("trained") or ())
        more = f" and {len(names) - 3} more modules" if len(names) > 3 else ""
        whole = f", with {', '.join(names[:3])}{more} trained whole" if names else ""
        return f"An adapter of {of}: {_method(stated['method'], stated['arguments'])}{whole}."
    recipe = stated["recipe"] or {}
    if not isinstance(recipe, Mapping):
        return f"{of}, changed by {recipe}."
    if "merge" in recipe:
        return f"{of} with an adapter in its weights ({Path(str(recipe['merge'])).name})."
    steps = recipe.get("recipe") or []
    if not steps:
        return f"{of}, saved by polyad."
    by = " + ".join(_method(step["method"], step["arguments"]) for step in steps)
    share = f", {100 * recipe['keep']:g} % of the {recipe['budget']} kept" if recipe.get("keep") else ""
    return f"{of} made smaller by {by}{share}; seed {stated['seed']}."


def _method(name: str, arguments: Mapping[str, Any]) -> str:
    return name + (f" ({', '.join(f'{key}={value}' for key, value in arguments.items())})" if arguments else "")


def _loading(stated: Mapping[str, Any], name: str) -> list[str]:
    """The Python that loads the folder."""
    if stated["kind"] == "adapter":
        first = (
            f"model = polyad.load({stated['model']!r})"
            if stated.get("model")
            else "model = ...  # the model that it was trained on"
        )
        return ["import polyad", "from polyad.adapters import Adapters", "", first, f"Adapters(model).load({name!r})"]
    if stated["plain"]:
        kind = stated["kind"]
        return [f"from transformers import {kind}", "", f"model = {kind}.from_pretrained({name!r})"]
    return ["import polyad", "", f"model = polyad.load({name!r})"]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as a table of Markdown under its heading; nothing without rows."""
    if not rows:
        return []
    cells = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return ["## Measured", "", cells[0], f"|{'---|' * len(rows[0])}", *cells[1:], ""]


def _licence_line(matter: Mapping[str, Sequence[str]], folder: Path) -> str:
    """The sentence on the licence, which is the base's, and on the base's card."""
    beside = f" The base's own card is in {BASE_CARD}." if (folder / BASE_CARD).is_file() else ""
    if "license" in matter:
        return f"The licence is the base's: {matter['license'][0].partition(':')[2].strip()}.{beside}"
    return f"The base states no licence here; look at its own page before you hand this on.{beside}"
