"""Formats in files: every kind and layout, what every decomposition makes, what ``polyad decompose`` keeps."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from polyad._card import card, methods
from polyad.formats import kinds, save_format
from polyad.testing import decompositions
from polyad.testing.formats._variants import variants
from saved.reading import command
from saved.shelf import case, on_grid, unrounded


def keep(name, holds, formats):
    with case("format", name, holds) as made:
        made.saved.mkdir()
        for file, format in formats.items():
            save_format(format, made.saved / f"{file}.safetensors")
            made.before |= {f"state/{file}/{key}": t for key, t in format.tensors().items()}
        made.exact |= unrounded(formats)


def every_kind():
    drawn = {}
    for name, kind in kinds().items():
        for shape in ((6, 6), (6, 4), (4, 3, 5), (2, 4, 6)):
            if kind.fits(shape) and not (shape == (6, 6) and kind.fits((6, 4))):
                made = kind.random(shape, generator=torch.Generator().manual_seed(0))
                drawn[f"{name}-{'x'.join(map(str, shape))}"] = on_grid(made)
    half = kinds()["LowRank"].random((6, 4), generator=torch.Generator().manual_seed(0))
    drawn |= {"double": half.to(torch.float64), "half": half.to(torch.bfloat16)}
    keep("kinds", "a format of every kind, as a matrix, with three modes, in a batch, and in other dtypes", drawn)
    keep(
        "layouts",
        "the layouts, widths and nestings that a kind can have",
        {n: on_grid(f) for n, f in variants().items()},
    )


def every_method():
    made = {c.name: decompositions.made(c, decompositions.drawn(c, torch.float32)) for c in methods("decompose")}
    x = torch.linspace(-1, 1, 48).reshape(4, 12).square()
    made |= {c.name: c.function(x, bits=3, group=4) for c in methods("quantize")}
    made["householder_product"] = card("householder_product").function(torch.linalg.qr(x.mT)[0])
    keep("methods", "what every decomposition and every quantiser makes", made)


def command_line():
    """``polyad decompose FILE --out``, of every format that it offers."""
    axis = torch.linspace(0, 1, 6)
    x = torch.stack([(axis[:, None] * k + axis).cos() for k in (1, 2, 3, 4)], -1).numpy()
    with (
        case("format", "decompose", "what polyad decompose --out keeps") as made,
        tempfile.TemporaryDirectory() as work,
    ):
        made.saved.mkdir()
        file = Path(work) / "x.npy"
        for name in ("matrix", "tucker", "tt", "tree", "tubal", "cp"):
            np.save(file, x.reshape(6, 24) if name == "matrix" else x)
            command(
                "decompose",
                file,
                "--format",
                name,
                "--tol",
                0.1,
                "--out",
                made.saved / f"{name}.safetensors",
                "--json",
            )


MAKE = (every_kind, every_method, command_line)
