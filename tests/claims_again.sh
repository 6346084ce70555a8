#!/usr/bin/env bash
# Runs as many claims as asked for again, chosen by the commit, and fails where a result disagrees with the kept one.
set -euo pipefail
.venv/bin/python - "$1" "$(git rev-parse HEAD)" <<'PYTHON'
import random
import sys

from polyad.claims import handles, results, run

count, commit = int(sys.argv[1]), sys.argv[2]
kept = {r["handle"]: r for r in results()}
chosen = random.Random(commit).sample(sorted(kept), min(count, len(kept)))
print(f"{len(handles())} claims, {len(kept)} with results; again: {', '.join(chosen)}", flush=True)
failed = []
for handle in chosen:
    again = run(handle)
    same = again["holds"] == kept[handle]["holds"] and again["data"] == kept[handle]["data"]
    print(f"{handle}: {again['measured']:.4g}, kept {kept[handle]['measured']:.4g}, {again['seconds']:.0f} s", flush=True)
    if not same:
        failed.append(handle)
if failed:
    sys.exit(f"claims that disagree with their kept results: {', '.join(failed)}")
PYTHON
