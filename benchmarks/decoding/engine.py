"""llama.cpp's own clock, from a ``llama-bench`` built for this processor or, without one, from ``xllamacpp``.

The program is the one that ``LLAMA_BENCH`` names, or ``~/.cache/polyad/benchmarks/llama.cpp/llama-bench``. It builds
in a few minutes from the sources within the package llama-cpp-python; ``xllamacpp``'s wheel serves any processor and
is slower:

    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36 && tar xf llama_cpp_python-0.3.36.tar.gz
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \\
        -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF
    cmake --build build --target llama-bench && cp -a build/bin ~/.cache/polyad/benchmarks/llama.cpp
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from benchmarks.decoding.folders import KEPT, engine_file

BUILT = KEPT / "llama.cpp" / "llama-bench"
DEPTH = 20
"""Tokens before the first that is timed, about as many as the prompt has."""


def engine_seconds(recipe: str, prompt: str, tokens: int) -> float:
    """Seconds of a decoded token, the prompt's left out."""
    program = os.environ.get("LLAMA_BENCH", str(BUILT) if BUILT.exists() else None)
    if program is not None:
        return _by_program(program, recipe, tokens)
    answer = _server(recipe).handle_completions({
        "prompt": prompt, "n_predict": tokens, "temperature": 0.0, "cache_prompt": False, "ignore_eos": True,
        "stream": False,
    })  # fmt: skip
    return answer["timings"]["predicted_per_token_ms"] / 1000


@functools.cache
def _server(recipe: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(engine_file(recipe))
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 512, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    return xllamacpp.Server(params)


def _by_program(program: str, recipe: str, tokens: int) -> float:
    call = [program, "-m", str(engine_file(recipe)), "-t", str(torch.get_num_threads()), "-p", "0", "-n", str(tokens),
            "-d", str(DEPTH), "-r", "1", "-o", "json"]  # fmt: skip
    libraries = os.environ | {"LD_LIBRARY_PATH": str(Path(program).parent)}
    said = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True, env=libraries).stdout
    return 1.0 / json.loads(said)[0]["avg_ts"]
