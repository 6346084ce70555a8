"""An instance, and examples of inputs, of a module that is no model of transformers, for its export."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

SHAPES = re.compile(r"\d+(x\d+)*(,\d+(x\d+)*)*")


def module_of(text: str) -> Any:
    """The module that ``FILE.py:function`` makes: called without arguments, it gives one of the architecture.

    What it prints goes to standard error, so that ``--json`` stays one value.
    """
    from torch import nn

    from polyad.evaluation.measure_files import code_file, function_in_file, place_of

    with contextlib.redirect_stdout(sys.stderr):
        make = function_in_file(text, option="--like", example="my_network.py:network")
        try:
            module = make()
        except Exception as error:  # it is the user's code
            raise ValueError(f"--like {text} stopped: {place_of(error, code_file(make))}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"--like {text} gave a {type(module).__name__}; let the function return an nn.Module")
    return module


def inputs_of(text: str) -> Any:
    """Examples of inputs: normal numbers of shapes such as 2x3x224x224, or the tensors by name of a file."""
    import torch

    if SHAPES.fullmatch(text):
        shapes = [tuple(int(n) for n in shape.split("x")) for shape in text.split(",")]
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(shape, generator=generator) for shape in shapes)
    path = Path(text).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(
            f"--inputs {text!r} is neither shapes, such as 2x3x224x224 (joined by commas where there are several), "
            "nor a .safetensors file with the tensors by name"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"--inputs {path} is no whole .safetensors file ({error})") from None
