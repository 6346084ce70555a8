"""llama.cpp's own clock, from the package ``xllamacpp`` (prebuilt) or from ``LLAMA_BENCH``, a program built here."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from typing import Any

import torch
from benchmarks.decoding.folders import engine_file


def engine_seconds(recipe: str, prompt: str, tokens: int) -> float:
    """Seconds of a decoded token, the prompt's left out."""
    program = os.environ.get("LLAMA_BENCH")
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
            "-r", "1", "-o", "json"]  # fmt: skip
    said = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    return 1.0 / json.loads(said)[0]["avg_ts"]
