"""Pieces of a decoder as the bytes of a file: which container holds each, and what of it goes into a LoRA file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from polyad.export.gguf.containers import GRIDS, Rows, encode_codes, encode_dense
from polyad.export.gguf.pieces import Piece
from polyad.formats import Dense, Format, LowRank, Quantized, Sum
from polyad.formats.stored.packing import pack, unpack

WHOLE = ("token_embd", "output")
"""The embedding and the head, which llama.cpp's own files keep at 8 bits where the rest has fewer."""
STORED = {torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True, eq=False)
class Encoded:
    """One piece as it goes into a file.

    ``restored`` is the float32 matrix that the model has if it has the file's numbers, None where they are the same
    or codes were kept. ``correction`` is what goes into a LoRA file, its rows and columns in the file's order.
    ``origin`` names what the weight was.
    """

    piece: Piece
    rows: Rows
    restored: Tensor | None
    correction: LowRank | None
    origin: str


def encode(piece: Piece, container: str | None) -> Encoded:
    """A matrix or a vector in its container: codes stay codes where one has a place for them."""
    weight = piece.weight
    if isinstance(weight, Tensor) and weight.ndim == 1:
        return Encoded(piece, encode_dense(weight.unsqueeze(0), "F32"), None, None, "vector")
    base, low_rank = split_correction(weight, allowed=piece.name not in WHOLE)
    correction = None if low_rank is None else in_file_order(low_rank, piece)
    if isinstance(base, Quantized):
        aligned = base if piece.columns is None else pad_codes(base, piece.columns)
        rows = None if aligned is None else encode_codes(aligned)
        if rows is not None:
            return Encoded(piece, rows, None, correction, "Quantized")
    dense = base if isinstance(base, Tensor) else to_dense(base)
    matrix = dense if piece.columns is None else take_columns(dense, piece.columns)
    rows = encode_dense(matrix, choose_container(piece, base, dense.dtype, container))
    restored = rows.to_matrix() if rows.error else None
    if restored is not None and piece.columns is not None:
        places = torch.argsort(piece.columns[piece.columns >= 0])
        restored = restored[:, (piece.columns >= 0).nonzero().flatten()[places]]
    if restored is not None and low_rank is not None:
        restored = restored + to_dense(low_rank).float()
    return Encoded(piece, rows, restored, correction, type(base).__name__)


def choose_container(piece: Piece, base: Tensor | Format, dtype: torch.dtype, container: str | None) -> str:
    """The container of what is not kept as codes: the one asked for, or one that holds the numbers as they are.

    Codes that no container has a place for go into eight bits.
    """
    if container in GRIDS and piece.name in WHOLE:
        return "Q8_0"
    if isinstance(base, Quantized):
        return container if container is not None and container not in GRIDS else "Q8_0"
    return container or STORED.get(dtype, "F32")


def split_correction(weight: Tensor | Format, *, allowed: bool) -> tuple[Tensor | Format, LowRank | None]:
    """The part that is stored whole and the low-rank part beside it, None unless the weight is a sum of such two."""
    if not allowed or not isinstance(weight, Sum):
        return weight, None
    base = [term for term in weight.terms if not isinstance(term, LowRank)]
    low_rank = [term for term in weight.terms if isinstance(term, LowRank)]
    if len(base) != 1 or not low_rank or not isinstance(base[0], Quantized | Dense):
        return weight, None
    left = torch.cat([dense_part(term.left) for term in low_rank], -1)
    right = torch.cat([dense_part(term.right) for term in low_rank], -2)
    return base[0], LowRank(left, right)


def dense_part(part: Tensor | Format) -> Tensor:
    """A factor, which may be quantised itself, as float32."""
    return (part if isinstance(part, Tensor) else to_dense(part)).float()


def to_dense(weight: Format) -> Tensor:
    """The matrix of a format; of a quantised one in float32, in which its codes are exact."""
    if isinstance(weight, Quantized):
        return weight.dequantize(torch.float32)
    if isinstance(weight, Sum):
        return reduce(torch.add, [to_dense(term) for term in weight.terms])
    return weight.to_dense()


def in_file_order(low_rank: LowRank, piece: Piece) -> LowRank:
    """Factors with the rows and columns that the matrix has in the file."""
    left, right = dense_part(low_rank.left), dense_part(low_rank.right)
    left = left if piece.rows is None else take_columns(left.mT, piece.rows).mT
    return LowRank(left, right if piece.columns is None else take_columns(right, piece.columns))


def take_columns(matrix: Tensor, index: Tensor) -> Tensor:
    """These columns in this order; -1 gives one of zeros."""
    picked = matrix.detach().cpu()[:, index.clamp(min=0)]
    return torch.where(index < 0, torch.zeros((), dtype=picked.dtype), picked)


def pad_codes(q: Quantized, index: Tensor) -> Quantized | None:
    """A quantised matrix with columns more, which are multiplied by nothing; None where columns would move."""
    columns, width = q.size[-1], len(index)
    if (
        q.ndim != 2
        or not bool((index[:columns] == torch.arange(columns)).all())
        or bool((index[columns:] >= 0).any())
    ):
        return None
    codes = torch.nn.functional.pad(unpack(q.codes, q.bits, columns), (0, width - columns))
    more = -(-width // q.block[-1]) - q.scale.shape[-1]
    if q.block[-1] >= columns:  # one scale for a row, however long
        block, more = (q.block[0], width), 0
    else:
        block = q.block
    scale = torch.nn.functional.pad(q.scale, (0, more))
    zero = torch.nn.functional.pad(q.zero, (0, more)) if isinstance(q.zero, Tensor) else q.zero
    return replace(q, codes=pack(codes, q.bits), scale=scale, zero=zero, size=(q.size[0], width), block=block)
