"""``polyad convert``: write a model's attention in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyad.cli import options
from polyad.cli.output import command, emit, out, progress


def convert(
    model: options.Model,
    to: Annotated[str, typer.Option(help="the form of attention: mla")],
    out_folder: Annotated[Path, typer.Option("--out", help="a folder to make")],
    rank: Annotated[
        int | None, typer.Option(help="numbers of the latent, for a smaller cache; without it nothing is lost")
    ] = None,
    rope: Annotated[int | None, typer.Option(help="numbers of the rotary key beside it")] = None,
    heal: Annotated[
        int, typer.Option(min=0, help="steps of training the new attention to say what the model said")
    ] = 0,
    rate: Annotated[float, typer.Option(help="the learning rate of healing")] = 1e-4,
    calibrate: options.Texts = None,
    calibration_windows: options.CalibrationWindows = 16,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Rewrite the attention of MODEL as multi-head latent attention and save it to --out.

    Healing that was stopped goes on when the same command is given again.
    """
    from polyad import attention
    from polyad.data import calibration
    from polyad.models import origin, save
    from polyad.models.folder import base_of, check_free
    from polyad.models.loading import check_numbers
    from polyad.models.loading_line import loading_line

    if to != "mla":
        raise ValueError(f"--to {to} is not known; attention can be converted to mla")
    check_free(out_folder)
    options.fix_seed(seed)
    one = options.load_model(model, dtype, device)
    check_numbers(one)
    count = max(calibration_windows, heal // 2)  # a step of healing reads half a window
    text = None if rank is None else calibration(one, options.texts_of(calibrate), count=count)
    windows = [] if text is None else [window.to(device) for window in text.windows]
    state = out_folder.absolute().with_name(f".{out_folder.absolute().name}.state")
    stated = {"convert": to, "rank": rank, "rope": rope, "heal": heal}
    with progress() as callback:
        attention.convert(
            one, rank=rank, rope=rope, windows=windows, heal=heal, rate=rate, state=state, callback=callback
        )
    latent = [m for m in one.modules() if isinstance(m, attention.LatentAttention)]
    numbers = sum(m.rank + m.rope for m in latent)
    before = sum(2 * (one.config.num_key_value_heads or m.heads) * m.value for m in latent)
    save(one, out_folder, tokenizer=origin(one).tokenizer, recipe=stated, base=base_of(origin(one).folder), seed=seed)
    state.unlink(missing_ok=True)
    if json:
        emit({"command": command(), "model": model, "out": str(out_folder), "cache_numbers_per_token": numbers,
              "cache_numbers_per_token_before": before, "load": loading_line(out_folder)})  # fmt: skip
    else:
        out.print(
            f"saved to {out_folder}; the cache takes {numbers:,} numbers a token, {numbers / before:.1%} of before"
        )
        out.print(loading_line(out_folder), soft_wrap=True)
