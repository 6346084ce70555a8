"""What exported files hold and cost, beside llama.cpp's own files and onnxruntime on the original.

LLAMA_TOOLS=FOLDER python -m benchmarks.exports [PATTERN …] [--again] [--list] [--show]

Each row runs in a process of its own and is stored at once in benchmarks/results/exports.json; one that is there is
not run again unless --again asks for it. LLAMA_TOOLS holds llama-quantize, llama-perplexity and llama-bench, built of
llama.cpp for this processor. Networks come from PyPI: see `make peers`. Files are made in ~/.cache/polyad/benchmarks.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.exports.gguf_rows import ROWS as GGUF
from benchmarks.exports.onnx_rows import ROWS as ONNX
from benchmarks.stored_rows import arguments, run_rows

RESULTS = Path(__file__).parents[1] / "results" / "exports.json"


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    done = run_rows(given, {**GGUF, **ONNX}, "benchmarks.exports", RESULTS, lambda _name: 1)
    if done is None:
        return
    chosen, kept = done
    for name in chosen:
        for one in kept["rows"].get(name, {}).get("asked", ()):
            print(f"{'met   ' if one['met'] else 'MISSED'} {name}: {one['what']} {one['value']:.4f}, {one['asked']}")


if __name__ == "__main__":
    main()
