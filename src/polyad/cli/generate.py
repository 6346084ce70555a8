"""``polyad generate``: let a model continue a prompt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Annotated, Any, TextIO

import typer

from polyad.cli import options
from polyad.cli.chat import chat as converse
from polyad.cli.output import emit, out, say_warnings

OwnDtype = Annotated[
    str | None,
    typer.Option("--dtype", help="what to compute in; by default bfloat16 where the processor is fast in it"),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="threads to compute with; by default as many as torch takes")
]
Kernels = Annotated[
    str,
    typer.Option(
        metavar="auto|plain|NAME",
        help="the products of compressed layers: auto, those measured to be fast here; plain, exact ones; or one "
        "by its name, as inspect --kernels shows it",
    ),
]


def generate(
    model: options.Model,
    prompt: Annotated[str | None, typer.Argument(help="the text to continue; with --chat what to answer")] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="answer through the model's chat template; without PROMPT line after line"),
    ] = False,
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
    dtype: OwnDtype = None,
    threads: Threads = None,
    kernels: Kernels = "auto",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Continue PROMPT with MODEL, an original or a compressed one; with --chat hold a conversation."""
    import torch

    from polyad.decode import cache_by_name, default_dtype
    from polyad.decode import generate as continue_prompt
    from polyad.evaluation.quality import check_predicts
    from polyad.models.loading import check_numbers

    _refuse_nothing(prompt, tokens, chat=chat)
    if threads is not None:
        torch.set_num_threads(threads)
    options.fix_seed(seed)
    wanted = options.dtype_of(dtype) if dtype is not None else default_dtype(options.device_of(device).type)
    one = options.load_model(model, str(wanted).removeprefix("torch."), device, adapter, kernels)
    check_predicts(one)
    check_numbers(one)
    streams = not json and sys.stdout.isatty()
    how: dict[str, Any] = {"max_new_tokens": tokens, "sample": sample, "dtype": wanted, "kernels": kernels}
    if chat:

        def answer(ids: list[int], show: Callable[[str], object] | None) -> str:
            kept = cache_by_name(one, cache, lambda: options.texts_of(calibrate))
            spoken = continue_prompt(one, ids, cache=kept, stream=show, **how)
            return spoken.text[0] if spoken.text is not None else ""

        converse(one, prompt, answer, json=json)
        return
    assert prompt is not None
    with say_warnings():
        kv = cache_by_name(one, cache, lambda: options.texts_of(calibrate))
    write = _writer(prompt) if streams else None
    with redirect_stdout(sys.stderr):  # some models print as they run
        generation = continue_prompt(one, prompt, cache=kv, stream=write, **how)
    assert generation.text is not None
    if json:
        emit(_record(generation) | {"model": model, "adapter": adapter, "prompt": prompt, "cache": cache})
    elif streams:
        out.print()
    else:
        out.print(prompt + generation.text[0], highlight=False, markup=False, soft_wrap=True)


def _refuse_nothing(prompt: str | None, tokens: int, *, chat: bool) -> None:
    if prompt is None and not chat:
        raise ValueError("there is no text to continue; give one, or --chat for a conversation")
    if tokens < 1:
        raise ValueError(f"--tokens {tokens} is below 1; ask for at least one token")


def _record(generation: Any) -> dict[str, Any]:
    """The JSON of the generation of one text."""
    names = (
        "seconds",
        "cache_bytes",
        "milliseconds_per_token",
        "prefill_tokens_per_second",
        "threads",
        "loop",
        "reason",
    )
    return {
        "text": generation.text[0],
        "tokens": generation.tokens.shape[1],
        "dtype": str(generation.dtype).removeprefix("torch."),
        **{name: getattr(generation, name) for name in names},
    }


def _writer(prompt: str) -> Callable[[str], object]:
    """The function that shows the text on the terminal as it is made, the prompt first."""
    terminal = sys.stdout
    write_piece(terminal, prompt)
    return lambda text: write_piece(terminal, text)


def write_piece(terminal: TextIO, text: str) -> None:
    """Show a piece of a text at once."""
    terminal.write(text)
    terminal.flush()
