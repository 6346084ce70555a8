"""Writes the definitions in all results of claims anew, from the commits that they were measured at.

python tests/claims_history.py [HANDLE …]

It is for whoever changes what `polyad.claims` takes for a definition (`_normal_form`, `_strip_words`, `_scripts`):
every recorded hash then says nothing, and this finds them again in the history, without measuring anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from polyad.claims import handles
from polyad.claims._result_files import read_result, write_result
from polyad.claims._scripts import definition_labels
from polyad.claims.definitions import Sources

ROOT = Path(__file__).parent.parent
CARDS = """
import importlib, json, pkgutil
import polyad
for module in pkgutil.walk_packages(polyad.__path__, "polyad."):
    if module.name.split(".")[1] not in ("claims", "cli", "report") and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
methods = [(handle, card.module, card.function.__name__) for card in polyad.methods() for handle in card.handles]
print(json.dumps(methods))
"""


def tree_at(commit: str, folder: Path) -> tuple[Sources, list[list[str]]]:
    """The sources of polyad at a commit, and (handle, module, name) of the methods it had."""
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit, "src"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", folder], check=True, input=archive)
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    run = subprocess.run([sys.executable, "-c", CARDS], check=True, capture_output=True, env=environment, text=True)
    package = folder / "src" / "polyad"
    for file in ("_result.py", "_code.py"):  # how results were once kept: no part of a claim
        (package / "claims" / file).unlink(missing_ok=True)
    return Sources({"polyad": package}), json.loads(run.stdout.splitlines()[-1])


def script_at(handle: str, package: Path) -> str:
    """The module of a claim in a tree."""
    name = f"{handle.replace('-', '_')}.py"
    (file,) = [*package.glob(f"claims/{name}"), *package.glob(f"claims/*/{name}")]
    return ".".join(("polyad", *file.relative_to(package).with_suffix("").parts))


def main() -> None:
    stored = [result for handle in sys.argv[1:] or handles() if (result := read_result(handle)) is not None]
    for commit in sorted({result.lines[0].commit for result in stored if result.lines[0].commit}):
        with tempfile.TemporaryDirectory() as folder:
            sources, methods = tree_at(commit, Path(folder))
            for result in [result for result in stored if result.lines[0].commit == commit]:
                roots = [(script_at(result.handle, Path(folder) / "src" / "polyad"), "claim")]
                roots += [(module, name) for handle, module, name in methods if handle == result.handle]
                labels = definition_labels(sources, roots)
                print(f"{result.handle}: {len(set(labels) ^ set(result.definitions))} labels differ", flush=True)
                write_result(replace(result, definitions=labels))


if __name__ == "__main__":
    main()
