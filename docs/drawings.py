"""The pictures of the methods' pages: a format's network of tensors, and where an adapter stands among all others."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence

import charts
import guide_pictures

from polyad import Card


def pictures(cards: Sequence[Card]) -> dict[str, str]:
    """The picture of every method that has one, as SVG that stands in its page."""
    drawn = {card.name: network(card) for card in cards if card.kind in ("decompose", "factor")}
    return {name: text for name, text in drawn.items() if text} | {
        card.name: among_adapters(card.name) for card in cards if card.name in _tuned()
    }


def network(card: Card) -> str:
    """The tensors of the format that a method makes and the bonds that they share; "" where it is no network."""
    import torch

    if card.makes is None or not hasattr(card.makes, "network"):
        return ""
    for shape in ((6, 6, 6, 6), (6, 6, 6), (12, 12)):
        if card.makes.fits(shape):
            format = card.makes.random(shape, generator=torch.Generator().manual_seed(0))
            return _diagram(format.network()[0], card.makes.__name__)
    return ""


def _diagram(expression: str, name: str) -> str:
    """Tensors as circles around a centre, bonds as lines between them, modes as lines that end in the open.

    A bond of three or more tensors meets in a dot.
    """
    operands, _, modes = expression.partition("->")
    terms = [term.strip() for term in operands.split(",")]
    angles = [math.pi + 2 * math.pi * k / len(terms) for k in range(len(terms))]
    at = [(190 + 90 * math.cos(angle), 130 + 70 * math.sin(angle)) for angle in angles]
    lines, dots = [], []
    for letter in sorted(set("".join(terms)) - {" "}):
        ends = [at[k] for k, term in enumerate(terms) if letter in term]
        if letter in modes:
            k = next(k for k, term in enumerate(terms) if letter in term)
            place = terms[k].index(letter) - (len(terms[k]) - 1) / 2
            out = angles[k] + 0.35 * place
            ends.append((190 + 150 * math.cos(out), 130 + 106 * math.sin(out)))
        if len(ends) > 2:
            centre = tuple(sum(values) / len(ends) for values in zip(*ends, strict=True))
            dots.append(f'<circle cx="{centre[0]:.0f}" cy="{centre[1]:.0f}" r="4" fill="#222"/>')
            lines += [_line(end, centre) for end in ends]
        elif len(ends) == 2:
            lines.append(_line(*ends))
    circles = [f'<circle cx="{x:.0f}" cy="{y:.0f}" r="17" fill="{charts.COLOURS[0]}"/>' for x, y in at]
    words = (
        f'<text x="190" y="256" text-anchor="middle" font-size="13" fill="#222">{name}: {len(terms)} tensors</text>'
    )
    head = '<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 380 262" width="380" height="262">'
    return "\n".join(
        [head, '<rect width="380" height="262" rx="6" fill="#fff"/>', *lines, *circles, *dots, words, "</svg>"]
    )


def _line(start: tuple[float, ...], end: tuple[float, ...]) -> str:
    ends = f'x1="{start[0]:.0f}" y1="{start[1]:.0f}" x2="{end[0]:.0f}" y2="{end[1]:.0f}"'
    return f'<line {ends} stroke="#555" stroke-width="2.5"/>'


@functools.cache
def _tuned() -> dict[str, tuple[float, float]]:
    """Trained numbers and held-out loss of each adapter's best run at seed 0."""
    best: dict[str, tuple[float, float]] = {}
    for record in json.loads((guide_pictures.RESULTS / "finetune.json").read_text()):
        point = (record["trained_parameters"], guide_pictures.held_out_loss(record))
        if record["seed"] == 0 and point[1] < best.get(record["method"], (0, math.inf))[1]:
            best[record["method"]] = point
    return best


def among_adapters(name: str) -> str:
    """All adapters by trained numbers and held-out loss, one of them coloured."""
    tuned = _tuned()
    groups = {"other adapters": [(n, *p) for n, p in tuned.items() if n != name], name: [(name, *tuned[name])]}
    title = "Fine-tuned on two texts, 150 steps, SmolLM2-135M"
    return charts.scatter(title, groups, "trained numbers", "held-out loss, nats a token", log=True, named=False)
