"""Damage to files: flipped bits, cut ends, JSON of other types, huge counts, lists in lists, paths that lead out."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEAL = "polyad.sha256"
OUTSIDE = "../../outside"
DEEP: Any = json.loads("[" * 300 + "]" * 300)
SWAPS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 1.5, 10**6, 10**12, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x",
    "1" * 3000, OUTSIDE, "/outside", "\x00", "(a+)+$", ".*" * 12, [], [0], [-1, 2], [10**9, 10**9], {}, {"": None},
    {"kind": "Sum", "fields": {"terms": []}}, {"shape": [2**40], "dtype": "float32"}, {"torch": "load"}, "torch.nn",
    DEEP, ["x"] * 50, "float64", "int8", "weight", "Dense", "model.layers",
)  # fmt: skip
PIECES = (
    ":", ",", "=", "+", "x", "-", "1e999", "9" * 30, "nan", "None", "true", "=[", "(", ")" * 20, "\x00", "é", " ",
   "rank=2",    "bits=4", "lora", "rtn", "keep=0.5", "64x1", "0x", "1x" * 400, ";", "/", "*", "{}",
    "float16",
)  # fmt: skip


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    """One flipped bit, a cut, a run of zeros or of 0xff, doubled bytes, or more at the end."""
    if not content:
        return b"\x00"
    at = draw.randrange(min(len(content), 4096) if draw.random() < 0.5 else len(content))
    some = draw.choice((1, 2, 4, 8, 64))
    kind = draw.randrange(6)
    if kind <= 1:
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    if kind == 2:
        return content[:at]
    if kind == 3:
        return content[:at] + draw.choice((b"\x00", b"\xff")) * some + content[at + some :]
    return content[:at] + content[at : at + some] + content[at:] if kind == 4 else content + content[:some]


def mutate_json(value: Any, draw: random.Random) -> Any:
    """The value with another at a random place, or without a key, or with a key of another name."""
    places = list(_places(value, ()))
    place = draw.choice(places)
    if not place:
        return draw.choice(SWAPS)
    owner = value
    for key in place[:-1]:
        owner = owner[key]
    key, kind = place[-1], draw.randrange(8)
    if kind == 0:
        del owner[key]
    elif kind == 1 and isinstance(owner, dict):
        owner[draw.choice(("x", f"{key}x", OUTSIDE, "weight"))] = owner.pop(key)
    elif kind == 2:
        owner[key] = _nearby(owner[key], draw)
    else:
        owner[key] = draw.choice(SWAPS)
    return value


def _nearby(value: Any, draw: random.Random) -> Any:
    """A value of the same type that is another."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return draw.choice((value + 1, -value, value * 1000, value * 10**9, value // 2, float(value)))
    if isinstance(value, str):
        return draw.choice((value + "x", value[:-1], value.upper(), value * 40, value[::-1]))
    if isinstance(value, list):
        return draw.choice((value + value, value[:-1], [value], value[::-1]))
    return draw.choice(([value], {"x": value}, dict(list(value.items())[:-1])))


def _places(value: Any, above: tuple[Any, ...]) -> Any:
    yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        if len(above) < 20:
            yield from _places(one, (*above, key))


def mutate_text(text: str, draw: random.Random) -> str:
    """A text with pieces put in, cut out, doubled or replaced."""
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(text) + 1)
        to = min(len(text), at + draw.randrange(6))
        text = draw.choice((
            text[:at] + draw.choice(PIECES) + text[at:], text[:at] + text[to:],
            text[:at] + draw.choice(PIECES) + text[to:], text[:to] + text[at:], text + draw.choice(PIECES),
        ))  # fmt: skip
    return text


def mutate_safetensors(content: bytes, draw: random.Random) -> bytes:
    """Its header as JSON, or JSON inside of its metadata, with one change, and mostly without the checksum."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    stated = [key for key, text in metadata.items() if text[:1] in "{["]
    if metadata.get(SEAL) and draw.random() < 0.8:
        del metadata[SEAL]
    if stated and draw.random() < 0.8:
        key = draw.choice(stated)
        metadata[key] = as_json(mutate_json(json.loads(metadata[key]), draw))
    else:
        header = mutate_json(header, draw)
    text = as_json(header).encode("utf-8", "replace")
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def as_json(value: Any) -> str:
    """The value as JSON; deep lists are written in a way that needs no recursion of ours."""
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return "[" * 5000


def mutate_file(file: Path, draw: random.Random) -> None:
    """Damage one file in a way that suits its kind."""
    content = file.read_bytes()
    changes: list[Callable[[], bytes]] = [lambda: mutate_bytes(content, draw)]
    if file.suffix in (".json", ".txt"):
        try:
            value = json.loads(content)
            changes = [*changes, *[lambda: as_json(mutate_json(value, draw)).encode()] * 4]
            changes.append(lambda: b"[" * 100_000)
        except ValueError:
            pass
    elif file.suffix in (".safetensors", ".state"):
        changes += [lambda: mutate_safetensors(content, draw)] * 3
    file.write_bytes(draw.choice(changes)())
