"""``polyad generate``: let a model continue a prompt."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer

from polyad.cli import options
from polyad.cli.output import emit, err, out, say_warnings


def generate(
    model: options.Model,
    prompt: Annotated[str, typer.Argument(help="the text to continue")],
    tokens: Annotated[int, typer.Option(help="the most tokens to make")] = 64,
    sample: Annotated[
        bool, typer.Option("--sample", help="draw from the distribution, not always the likeliest")
    ] = False,
    cache: Annotated[
        str, typer.Option(help="how to store keys and values: plain, or a codec such as kivi:bits=4")
    ] = "plain",
    adapter: options.Adapter = None,
    calibrate: options.Texts = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Continue PROMPT with MODEL, an original or a compressed one."""
    import torch

    from polyad.data import calibration, frame
    from polyad.evaluation.quality import check_predicts
    from polyad.models import encoder, origin
    from polyad.models.loading import check_numbers

    if tokens < 1:
        raise ValueError(f"--tokens {tokens} is below 1; ask for at least one token")
    options.fix_seed(seed)
    one = options.load_model(model, dtype, device, adapter)
    check_predicts(one)
    check_numbers(one)
    bare = encoder(one)(prompt)
    if not bare:
        raise ValueError("the prompt is empty; give some words to continue")
    ids = frame(one).enclose(torch.tensor([bare], device=device))
    kv = _cache_of(one, cache, lambda: calibration(one, options.texts_of(calibrate), count=8).windows)
    clock = time.perf_counter()
    mask = torch.ones_like(ids)
    settings = {"attention_mask": mask, "max_new_tokens": tokens, "do_sample": sample}
    if kv is not None:
        settings |= {"past_key_values": kv, "use_cache": True}  # many trained models say no, for their training
    with redirect_stdout(sys.stderr):  # some models print as they run
        new = one.generate(ids, **settings)[0, ids.shape[1] :]
    seconds = time.perf_counter() - clock
    text = origin(one).tokenizer.decode(new, skip_special_tokens=True)
    if json:
        emit({"model": model, "adapter": adapter, "prompt": prompt, "text": text, "tokens": len(new),
              "seconds": seconds, "cache": cache, "cache_bytes": None if kv is None else kv.nbytes})  # fmt: skip
    else:
        out.print(prompt + text, highlight=False, markup=False, soft_wrap=True)


def _cache_of(model: Any, name: str, windows: Callable[[], Any]) -> Any:
    """The cache of this name, or None where transformers is to make its own, since a codec has nothing to hold."""
    from polyad.cache.host.model_layers import takes_caches
    from polyad.cache.maker import maker

    if takes_caches(model):
        with say_warnings():
            kv = maker(model, name, windows)()
        return kv if kv.held else None
    if name != "plain":
        line = f"{type(model).__name__} takes no cache but one of its own kind: its cache is the plain one"
        err.print(line, soft_wrap=True)
    return None
