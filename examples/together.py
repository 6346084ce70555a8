"""A third of the bytes, fitted to your text, in polyad, llama.cpp and onnxruntime: every part of polyad in one go.

    pip install 'polyad[gguf,engines,onnx]'
    python examples/together.py smollm2            # or a folder; add texts of your own behind it

The model's weights become 4-bit codes that GGUF and ONNX hold as they are; an adapter on the codes learns the text;
keys and values take fewer bytes; and the files run where people run models. Every row predicts the same
tokens of text that none was trained on, each with all those before it. (SmolLM2 is shipped in 4 bits of 32 numbers,
so that rounding it again to such costs it little; other models lose more, and the adapter wins it back.)
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import polyad
from polyad.adapters import LoRA
from polyad.adapters.training.finetune import finetune
from polyad.adapters.training.settings import Finetuning
from polyad.cache.maker import maker
from polyad.evaluation import nbytes
from polyad.export import export, fit_recipe

RECIPE, CACHE, NEW = "rtn:bits=4,group=32", "kivi:bits=4,window=16", 32


class Result(NamedTuple):
    """The share of tokens predicted rightly, milliseconds a token, and bytes of keys and values a token."""

    right: float
    milliseconds: float
    cache: float | None = None


def main(name: str, *texts: str, steps: int = 30, windows: int = 4, length: int = 96) -> dict[str, Result]:
    """Print the table, and return its columns but for the bytes, row by row."""
    texts, results = texts or ("stdlib",), dict[str, Result]()
    print(f"{'':40} {'bytes':>12} {'right':>7} {'ms a token':>11} {'cache, bytes a token':>21}")

    def show(row: str, size: int, result: Result) -> None:
        results[row] = result
        cache = "" if result.cache is None else f"{result.cache:21,.0f}"
        print(f"{row:40} {size:12,} {result.right:7.1%} {result.milliseconds:11.1f} {cache}".rstrip(), flush=True)

    model: Any = polyad.load(name, dtype=torch.float32)
    heldout = torch.cat([*polyad.data.evaluation(model, texts, count=windows, length=length).values()])
    show("the original, in bfloat16", nbytes(model, (), width=2).total, in_polyad(model, heldout))

    polyad.apply(model, polyad.plan(model, fit_recipe(RECIPE, "gguf"), select="*"))
    show(f"{RECIPE}, everything", nbytes(model, (), width=2).total, in_polyad(model, heldout))

    adapters, _ = finetune(model, LoRA, Finetuning(texts, steps=steps, windows=1))
    size = nbytes(model, (), width=2).total
    show(f"  and an adapter, {steps} steps", size, in_polyad(model, heldout))
    show(f"  and a cache of {CACHE}", size, in_polyad(model, heldout, CACHE))

    with tempfile.TemporaryDirectory() as place:
        gguf = export(model, Path(place, "model.gguf"), "gguf")
        show("llama.cpp, the GGUF files", gguf.nbytes, in_llama_cpp([gguf.path, *gguf.more], heldout))
        onnx = export(model, Path(place, "onnx"), "onnx")
        show("onnxruntime, the ONNX folder", onnx.nbytes, in_onnxruntime(onnx.path, heldout))
    print(f"adapter: {sum(p.numel() for p in adapters.parameters('adapter')):,} numbers")
    return results


def in_polyad(model: Any, windows: Tensor, cache: str = "plain") -> Result:
    """The model as it stands; with a codec's cache, behind its window, read token by token as in decoding."""
    make = maker(model, cache, lambda: windows)
    chunk = 1 if cache != "plain" else windows.shape[1]
    with torch.no_grad():
        rows = [predictions(model, window, make(), chunk) for window in windows]
    generation = polyad.generate(model, windows[0], max_new_tokens=NEW, cache=cache)
    held = (generation.cache_bytes or 0) / (generation.sequences.shape[1] - 1)
    return Result(share(rows, windows), generation.milliseconds_per_token or 0.0, held)


def predictions(model: Any, window: Tensor, cache: Any, chunk: int) -> list[int]:
    """The likeliest tokens behind each of a window that is read in chunks."""
    parts = [model(ids[None], past_key_values=cache, use_cache=True).logits[0] for ids in window.split(chunk)]
    return torch.cat(parts).argmax(-1).tolist()


def in_llama_cpp(files: list[Path], windows: Tensor) -> Result:
    """llama.cpp from the package xllamacpp: the model, and the adapter as a LoRA file."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_gpu_layers, params.verbosity = str(files[0]), 512, 0, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(file), 1.0) for file in files[1:]]
    server = xllamacpp.Server(params)

    def complete(ids: list[int], count: int) -> Any:
        asked = {"prompt": ids, "n_predict": count, "temperature": 0.0, "n_probs": 1, "cache_prompt": True}
        return server.handle_completions(asked | {"ignore_eos": True, "stream": False})

    def likeliest(ids: list[int]) -> int:
        tops = (complete(ids, 1)["choices"][0].get("logprobs") or {}).get("content")
        return tops[0]["top_logprobs"][0]["id"] if tops else -1

    rows = [[likeliest(window[: n + 1].tolist()) for n in range(NEW - 1, len(window))] for window in windows]
    timed = complete(windows[0][:NEW].tolist(), NEW)["timings"]["predicted_per_token_ms"]
    return Result(share([[-1] * (NEW - 1) + row for row in rows], windows), timed)


def in_onnxruntime(folder: Path, windows: Tensor) -> Result:
    """onnxruntime, with the cache as inputs and outputs of the graph."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    outputs = [value.name for value in session.get_outputs()]
    past = {value.name: value.shape for value in session.get_inputs() if value.name.startswith("past")}

    def steps(chunks: Iterable[Any]) -> Iterator[tuple[Any, float]]:
        """The likeliest tokens behind each token of a chunk, and the seconds of the call."""
        cache = {name: numpy.zeros((1, s[1], 0, s[3]), numpy.float32) for name, s in past.items()}
        seen = 0
        for ids in chunks:
            places, seen = numpy.arange(seen, seen + len(ids))[None], seen + len(ids)
            feeds = {"input_ids": ids[None], "position_ids": places, "attention_mask": numpy.ones_like([[1] * seen])}
            clock = time.perf_counter()
            values = dict(zip(outputs, session.run(None, feeds | cache), strict=True))
            cache = {name: values[name.replace("past_key_values", "present")] for name in past}
            yield values["logits"][0].argmax(-1), time.perf_counter() - clock

    rows, seconds = [], []
    for window in windows.numpy():
        taken = list(steps([window[:NEW], *(window[i : i + 1] for i in range(NEW, len(window)))]))
        rows.append([int(token) for tokens, _ in taken for token in tokens])
        seconds += [clock for _, clock in taken[1:]]
    return Result(share(rows, windows), 1000 * statistics.median(seconds))


def share(rows: list[list[int]], windows: Tensor) -> float:
    """The share of tokens behind the first ``NEW`` of each window that were predicted."""
    right = [row[NEW - 1 : -1] == ids for row, ids in zip(torch.tensor(rows), windows[:, NEW:], strict=True)]
    return float(torch.stack(right).float().mean())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
