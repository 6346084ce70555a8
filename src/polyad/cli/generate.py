"""``polyad generate``: let a model continue a prompt."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from polyad.cli import options
from polyad.cli.output import emit, out, say_warnings


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

    from polyad.cache.maker import maker
    from polyad.data import calibration
    from polyad.evaluation.quality import check_predicts
    from polyad.models import encoder, origin
    from polyad.models.loading import check_numbers

    if tokens < 1:
        raise ValueError(f"--tokens {tokens} is below 1; ask for at least one token")
    options.fix_seed(seed)
    one = options.load_model(model, dtype, device, adapter)
    check_predicts(one)
    check_numbers(one)
    ids = torch.tensor([encoder(one)(prompt)], device=device)
    if ids.shape[1] == 0:
        raise ValueError("the prompt is empty; give some words to continue")
    with say_warnings():
        kv = maker(one, cache, lambda: calibration(one, options.texts_of(calibrate), count=8).windows)()
    clock = time.perf_counter()
    mask = torch.ones_like(ids)
    settings = {"attention_mask": mask, "max_new_tokens": tokens, "do_sample": sample}
    if kv.held:  # otherwise transformers makes its own, under the name that the model gives it
        settings["past_key_values"] = kv
    new = one.generate(ids, **settings)[0, ids.shape[1] :]
    seconds = time.perf_counter() - clock
    text = origin(one).tokenizer.decode(new, skip_special_tokens=True)
    if json:
        emit({"model": model, "adapter": adapter, "prompt": prompt, "text": text, "tokens": len(new),
              "seconds": seconds, "cache": cache, "cache_bytes": kv.nbytes if kv.held else None})  # fmt: skip
    else:
        out.print(prompt + text, highlight=False, markup=False, soft_wrap=True)
