"""The container of each tensor: the one asked for by a rule, or one that holds its numbers as they are."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from polyad.export.gguf.containers import CONTAINERS, ROUNDED, whole_blocks
from polyad.export.gguf.pieces import Piece
from polyad.formats import Format, Levels, Quantized, Superblocks

WHOLE = ("token_embd", "output")
"""The embedding and the head, which llama.cpp's own files keep at 8 bits where the rest has fewer."""
STORED = {torch.float16: "F16", torch.bfloat16: "BF16"}
Rules = Mapping[str, str]
"""Containers by glob patterns of layers' paths, or of tensors' names in the file; "" is all others."""


def container_rules(container: str | Mapping[str, str] | None) -> Rules:
    """The rules of an option: a container, or several with patterns before them, ``Q4_K,*down_proj=Q6_K``.

    >>> container_rules("Q4_0,*down_proj=Q6_K")
    {'': 'Q4_0', '*down_proj': 'Q6_K'}
    """
    if container is None:
        return {}
    if isinstance(container, str):
        parts = [part.strip().rpartition("=") for part in container.split(",")]
        rules = {pattern: name for pattern, _, name in parts}
    elif isinstance(container, Mapping):
        rules = dict(container)
    else:
        raise TypeError(f"container is a {type(container).__name__}; give a name, or names by patterns of layers")
    for name in rules.values():
        if name not in CONTAINERS:
            raise ValueError(f"container={name!r} is not known; choose one of {', '.join(CONTAINERS)}")
    return rules


def refuse_idle_rules(rules: Rules, pieces: list[Piece]) -> None:
    """Refuse a pattern that names no matrix."""
    names = [name for piece in pieces if piece.weight.ndim > 1 for name in (piece.path, piece.name)]
    for pattern in rules:
        if pattern and not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"container: the pattern {pattern!r} names no matrix of the model; its layers are called such as "
                f"{names[0]} and {names[-2]}"
            )


def choose_container(piece: Piece, base: Tensor | Format, dtype: torch.dtype, rules: Rules) -> str:
    """The container of what is not kept as codes: the one asked for, or one that holds the numbers as they are.

    The last pattern that fits decides. Without one, embedding and head have 8 bits where others have fewer, and codes
    that no container has a place for go into 8 bits. Rows that are no whole blocks have the next container.
    """
    named = [name for pattern, name in rules.items() if pattern and _names(pattern, piece)]
    default = rules.get("")
    if named:
        container = named[-1]
    elif (default in ROUNDED and piece.name in WHOLE) or (isinstance(base, Quantized | Superblocks | Levels)):
        container = default if default is not None and default not in ROUNDED else "Q8_0"
    else:
        container = default or STORED.get(dtype, "F32")
    return whole_blocks(container, base.shape[-1] if piece.columns is None else len(piece.columns))


def _names(pattern: str, piece: Piece) -> bool:
    return any(fnmatchcase(name, pattern) for name in (piece.path, piece.name))
