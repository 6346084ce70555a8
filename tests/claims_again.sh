#!/usr/bin/env bash
# Runs as many claims as asked for again, chosen by the commit, and fails where one contradicts its kept result: where a
# verdict is reversed, or a figure lies neither within its tolerance nor within the kept 95 % interval. Writes nothing.
set -euo pipefail
.venv/bin/python - "$1" "$(git rev-parse HEAD)" <<'PYTHON'
import random
import sys

from polyad.claims import conflict, handles, measure, results, unreadable_results

count, commit = int(sys.argv[1]), sys.argv[2]
kept = {result.handle: result.lines for result in results()}
chosen = random.Random(commit).sample(sorted(kept), min(count, len(kept)))
print(f"{len(handles())} claims, {len(kept)} with results; again: {', '.join(chosen)}", flush=True)
failed = [f"{handle} ({reason})" for handle, reason in unreadable_results().items()]
for handle in chosen:
    again = measure(handle).lines
    for old, new in zip(kept[handle], again):
        print(f"{handle}: {new.figure:.4g}, kept {old.figure:.4g}, {new.minutes:.1f} minutes", flush=True)
        if old.data != new.data:
            print(f"{handle}: the data have other hashes than when the result was kept", flush=True)
    reason = conflict(kept[handle], again)
    if reason is not None:
        failed.append(f"{handle} ({reason})")
if failed:
    sys.exit(f"claims that contradict their kept results: {', '.join(failed)}")
PYTHON
