"""The part of a page that shows how a model continued texts before and after."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from polyad.evaluation.sample_record import Sample


def samples_section(samples: Sequence[Sample], now: str = "compressed") -> str:
    """HTML of the beginnings of texts and their continuations; empty where none were made.

    >>> samples_section([])
    ''
    """
    if not samples:
        return ""
    body = "".join(_sample(sample, now) for sample in samples)
    return (
        "<section class='samples'><h2>The same beginning, continued</h2>"
        "<p>The likeliest tokens behind the beginning of each text. A sample shows the manner and proves nothing: "
        f"the figures do.</p>{body}</section>"
    )


def _sample(sample: Sample, now: str) -> str:
    rows = (("original", sample["original"]), (now, sample["now"]))
    texts = "".join(f"<dt>{escape(name)}</dt><dd>{_lines(text)}</dd>" for name, text in rows)
    return f"<h3>{escape(sample['text'])}</h3><blockquote>{_lines(sample['prompt'])} …</blockquote><dl>{texts}</dl>"


def _lines(text: str) -> str:
    """Text as HTML, one space for any run of spaces and breaks."""
    return escape(" ".join(text.split())) or "<em>nothing: the text ends</em>"
