"""Sheets of labelled tiles and charts of a few lines, drawn with Pillow for docs/pictures.py."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLOURS = ("#3f86cf", "#d5651a", "#0f9d76", "#c4689a", "#a8821a", "#8478d8", "#5f8f2e", "#c0504d")
"""Told apart by people who are colour-blind."""
_FONT = ImageFont.load_default(14)


def sheet(tiles: Mapping[str, Image.Image], columns: int, path: Path) -> None:
    """All tiles in rows, each under its label; a JPEG."""
    width, height = next(iter(tiles.values())).size
    rows, gap, top = math.ceil(len(tiles) / columns), 6, 22
    page = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + top + gap) - gap), "white")
    draw = ImageDraw.Draw(page)
    for place, (label, tile) in enumerate(tiles.items()):
        x, y = place % columns * (width + gap), place // columns * (height + top + gap)
        draw.text((x + 2, y + 2), label, fill="black", font=_FONT)
        page.paste(tile, (x, y + top))
    page.save(path, quality=88)


def chart(lines: Mapping[str, Sequence[float]], along: str, up: str, path: Path) -> None:
    """Lines over their index from 0, the vertical axis from 0, with names at the right; a PNG of few colours."""
    width, height, left, bottom, right, top = 900, 420, 60, 40, 170, 30
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    most, count = max(max(line) for line in lines.values()), max(len(line) for line in lines.values()) - 1
    step = 10 ** math.floor(math.log10(most))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if most / s <= 8)

    def place(i: float, value: float) -> tuple[float, float]:
        across = left + i / count * (width - left - right)
        return across, height - bottom - value / most * (height - bottom - top)

    for tick in range(int(most / step) + 1):
        (x, y), (end, _) = place(0, tick * step), place(count, 0)
        draw.line((x, y, end, y), fill="#dddddd")
        draw.text((x - 6, y), f"{tick * step:.4g}", fill="black", font=_FONT, anchor="rm")
    for i in range(0, count + 1, max(1, round(count / 6 / 10) * 10)):
        draw.text((place(i, 0)[0], height - bottom + 6), str(i), fill="black", font=_FONT, anchor="ma")
    draw.text((left, 6), up, fill="black", font=_FONT)
    draw.text((width - right, height - 18), along, fill="black", font=_FONT, anchor="ra")
    ordered = sorted(lines, key=lambda name: -lines[name][-1])
    for place_of_name, name in enumerate(ordered):
        colour = "black" if name == "original" else COLOURS[list(lines).index(name) % len(COLOURS)]
        draw.line([place(i, value) for i, value in enumerate(lines[name])], fill=colour, width=2)
        y = top + 24 * place_of_name + 10
        draw.line((width - right + 10, y, width - right + 34, y), fill=colour, width=3)
        draw.text((width - right + 40, y), name, fill="black", font=_FONT, anchor="lm")
    page.quantize(32).save(path, optimize=True)


def tile(x: Tensor, times: int) -> Image.Image:
    """Pixels (height, width, 3) from 0 to 255, rounded and clamped, each drawn as a square of some pixels."""
    picture = Image.fromarray(x.round().clamp(0, 255).byte().numpy())
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def jpeg(x: Tensor, budget: int) -> tuple[int, Tensor]:
    """What the codec made for photographs does with as many bytes, for comparison: its size, and the pixels."""
    picture, best = Image.fromarray(x.byte().numpy()), (0, x)
    for quality in range(1, 96):
        held = io.BytesIO()
        picture.save(held, "JPEG", quality=quality)
        if len(held.getvalue()) > budget:
            break
        best = len(held.getvalue()), torch.from_numpy(np.asarray(Image.open(held)).copy()).float()
    return best
