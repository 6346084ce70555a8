"""``python -m benchmarks.peers_suites PEER``: run a peer's tests with polyad in its place, and count."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results" / "peers_suites.json"
PEERS = ("tensorly", "torchtt", "peft", "transformers")


def run(peer: str, files: list[str], stand_in: bool) -> dict[str, list[str]]:
    """How each test ends: [verdict, reason, calls of polyad's functions]."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "outcomes.json"
        told = {"PEERS_STORE": str(store), "PEERS_SUITE": peer, "PEERS_STAND_IN": "1" if stand_in else "",
                "TENSORLY_BACKEND": "pytorch"}  # fmt: skip
        plain = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder]
        command = [sys.executable, "-m", "pytest", "-p", "benchmarks.peers_suites.plugin", *plain, *files]
        root = Path(__file__).parents[2]
        subprocess.run(command, env=os.environ | told, cwd=root, stdout=subprocess.DEVNULL, check=False)
        return json.loads(store.read_text()) if store.is_file() else {}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers_suites", description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--source", type=Path, help="a source checkout, for peers that ship no tests")
    parser.add_argument("--show", action="store_true", help="every test that is not right, with its reason")
    told = parser.parse_args()
    module = importlib.import_module(f"benchmarks.peers_suites.{told.peer}_stand_ins")
    spec = importlib.util.find_spec(told.peer)
    place = told.source or (Path(spec.origin or "").parent if spec else None)
    if place is None or not (place / module.SUITE[0]).is_file():
        parser.error(f"{told.peer}'s tests are not in {place}; name a source checkout with --source")
    files = [*(str((place / file).resolve()) for file in module.SUITE), *getattr(module, "CHOSEN", ())]
    alone, ours = run(told.peer, files, False), run(told.peer, files, True)
    counted = {
        name: outcome for name, outcome in ours.items() if alone.get(name, [""])[0] == "right" and int(outcome[2]) > 0
    }
    for name, outcome in counted.items():
        reason = next((why for part, why in module.OTHERWISE.items() if part in name), None)
        if reason is not None and outcome[0] == "wrong":
            outcome[:2] = ["refused", reason]
        if told.show and outcome[0] != "right":
            print(f"{outcome[0]:8} {name}: {outcome[1]}")
    counts = Counter(outcome[0] for outcome in counted.values())
    reasons = Counter(outcome[1] for outcome in counted.values() if outcome[0] == "refused")
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    stored[told.peer] = {
        "tests": len(counted), "right": counts["right"], "refused": counts["refused"],
        "wrong": sorted(name for name, outcome in counted.items() if outcome[0] == "wrong"),
        "refusals": dict(sorted(reasons.items())),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    print(f"{told.peer}: of {len(counted)} tests {counts['right']} right, {counts['refused']} refused, "
          f"{counts['wrong']} wrong")  # fmt: skip


if __name__ == "__main__":
    main()
