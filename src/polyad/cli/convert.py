"""``polyad convert``: write a model's attention in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from polyad._unfinished import Work, state_file, unfinished
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

    A run that was stopped goes on when the same command is given again.
    """
    from polyad.models.loading_line import loading_line

    if to != "mla":
        raise ValueError(f"--to {to} is not known; attention can be converted to mla")
    stated = {"convert": to, "rank": rank, "rope": rope, "heal": heal}
    texts = [options.absolute_text(text) for text in options.texts_of(calibrate)]
    run = {**stated, "model": model, "rate": rate, "calibrate": texts, "calibration_windows": calibration_windows,
           "device": device, "dtype": dtype, "seed": seed}  # fmt: skip
    options.fix_seed(seed)
    with unfinished(out_folder, run) as work:
        one = options.load_model(model, dtype, device)
        count = max(calibration_windows, heal // 2)  # a step of healing reads half a window
        numbers, before = _replace_attention(one, stated, texts, count, rate, state_file(out_folder))
        _write_once(one, work, stated, seed)
        if json:
            emit({"command": command(), "model": model, "out": str(out_folder), "cache_numbers_per_token": numbers,
                  "cache_numbers_per_token_before": before, "load": loading_line(out_folder)})  # fmt: skip
        else:
            size = f"{numbers:,} numbers a token, {numbers / before:.1%} of before"
            out.print(f"saved to {out_folder}; the cache takes {size}")
            out.print(loading_line(out_folder), soft_wrap=True)
        state_file(out_folder).unlink(missing_ok=True)


def _replace_attention(
    one: Any, stated: dict[str, Any], texts: list[str], count: int, rate: float, state: Path
) -> tuple[int, int]:
    """Convert and heal; the numbers that the cache takes a token, after and before."""
    from polyad import attention
    from polyad.data import calibration
    from polyad.models.loading import check_numbers

    check_numbers(one)
    text = None if stated["rank"] is None else calibration(one, texts, count=count)
    device = next(one.parameters()).device
    windows = [] if text is None else [window.to(device) for window in text.windows]
    options_of = {name: stated[name] for name in ("rank", "rope", "heal")}
    with progress() as callback:
        attention.convert_attention(one, **options_of, windows=windows, rate=rate, state=state, callback=callback)
    latent = [m for m in one.modules() if isinstance(m, attention.LatentAttention)]
    before = sum(2 * (one.config.num_key_value_heads or m.heads) * m.value for m in latent)
    return sum(m.rank + m.rope for m in latent), before


def _write_once(one: Any, work: Work, stated: dict[str, Any], seed: int) -> None:
    """Save in place of what a stopped run of this command has saved, and of nothing else."""
    from polyad.models import origin, save
    from polyad.models.folder import base_of

    source = origin(one)
    work.set_aside()
    save(one, work.target, tokenizer=source.tokenizer, recipe=stated, base=base_of(source.folder), seed=seed)
    work.bring_back()
