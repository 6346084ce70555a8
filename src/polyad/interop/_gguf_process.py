"""Runs llama.cpp on one file: ``python _gguf_process.py ASKED.json ANSWERED.json``.

Asked: ``file``, ``lora`` or null, ``threads``, ``context``, ``prompts`` and ``continued`` (lists of token ids),
``top`` (how many of the likeliest tokens to give), ``texts`` to be cut into tokens. Answered: for each prompt and
each number of tokens behind it pairs of an id and its log-probability, likeliest first, or null where the engine
gave none (it keeps back tokens that end within a character); and the ``ids`` of each text. Imports nothing of
polyad, so that it starts at once.
"""

from __future__ import annotations

import importlib
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any


def main(asked: Path, answered: Path) -> None:
    """Answer one request."""
    request = json.loads(asked.read_text(encoding="utf-8"))
    server = start(request)
    pairs = zip(request["prompts"], request["continued"], strict=True)
    steps = [
        [likeliest(server, prompt + more[:n], request["top"]) for n in range(len(more))] for prompt, more in pairs
    ]
    ids = [tokenize(server.listening_address, text) for text in request["texts"]]
    answered.write_text(json.dumps({"answers": steps, "ids": ids}), encoding="utf-8")


def start(request: dict[str, Any]) -> Any:
    """The engine with the file loaded, its cache in float32, on this many threads."""
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = request["file"]
    params.n_ctx = params.n_batch = params.n_ubatch = request["context"]
    params.n_parallel, params.warmup, params.n_gpu_layers = 1, False, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request["threads"]
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params, params.no_extra_bufts = False, True  # matrices as they are in the file
    if request["lora"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(request["lora"], 1.0)]
    return xllamacpp.Server(params)


def likeliest(server: Any, ids: list[int], top: int) -> list[tuple[int, float]] | None:
    """The likeliest tokens behind these, with their log-probabilities."""
    answer = server.handle_completions({
        "prompt": ids, "n_predict": 1, "temperature": 0.0, "n_probs": top, "cache_prompt": True, "stream": False,
        "samplers": ["temperature"],
    })  # fmt: skip
    if "choices" not in answer:
        raise SystemExit(f"error: {json.dumps(answer)[:300]}")
    steps = (answer["choices"][0].get("logprobs") or {}).get("content")
    return [(one["id"], one["logprob"]) for one in steps[0]["top_logprobs"]] if steps else None


def tokenize(address: str, text: str) -> list[int]:
    """The ids of a text, by the engine's own reading of special tokens."""
    body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
    request = urllib.request.Request(f"{address}/tokenize", body, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        return json.loads(answer.read())["tokens"]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
