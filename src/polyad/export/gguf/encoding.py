"""Pieces of a decoder as the bytes of a file: which container holds each, and what of it goes into a LoRA file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from polyad.export.gguf.choice import WHOLE, Rules, choose_container
from polyad.export.gguf.containers import Rows, encode_codes, encode_dense
from polyad.export.gguf.pieces import Piece
from polyad.formats import Dense, Format, Levels, LowRank, Quantized, Sum, Superblocks
from polyad.formats.stored.packing import pack, unpack


@dataclass(frozen=True, eq=False)
class Encoded:
    """One piece as it goes into a file.

    ``restored`` is the float32 matrix that the model has if it has the file's numbers, None where they are the same
    or codes were kept. ``beside`` is the low-rank part that is not in it, and ``correction`` the same as it goes into
    a LoRA file, its rows and columns in the file's order.
    ``origin`` names what the weight was.
    """

    piece: Piece
    rows: Rows
    restored: Tensor | None
    correction: LowRank | None
    origin: str
    beside: LowRank | None = None


def encode(piece: Piece, rules: Rules) -> Encoded:
    """A matrix or a vector in its container: codes stay codes where one has a place for them."""
    weight = piece.weight
    if isinstance(weight, Tensor) and weight.ndim == 1:
        return Encoded(piece, encode_dense(weight.unsqueeze(0), "F32"), None, None, "vector")
    base, low_rank = split_correction(weight, allowed=piece.name not in WHOLE)
    correction = None if low_rank is None else in_file_order(low_rank, piece)
    if isinstance(base, Quantized | Superblocks | Levels):
        aligned = base if piece.columns is None else pad_codes(base, piece.columns)
        rows = None if aligned is None else encode_codes(aligned)
        if rows is not None:
            return Encoded(piece, rows, None, correction, "Quantized")
    dense = base if isinstance(base, Tensor) else to_dense(base)
    matrix = dense if piece.columns is None else take_columns(dense, piece.columns)
    rows = encode_dense(matrix, choose_container(piece, base, dense.dtype, rules))
    restored = rows.to_matrix() if rows.error else None
    if restored is not None and piece.columns is not None:
        places = torch.argsort(piece.columns[piece.columns >= 0])
        restored = restored[:, (piece.columns >= 0).nonzero().flatten()[places]]
    return Encoded(piece, rows, restored, correction, type(base).__name__, low_rank)


def split_correction(weight: Tensor | Format, *, allowed: bool) -> tuple[Tensor | Format, LowRank | None]:
    """The part that is stored whole and the low-rank part beside it, None unless the weight is a sum of such two."""
    if not allowed or not isinstance(weight, Sum):
        return weight, None
    base = [term for term in weight.terms if not isinstance(term, LowRank)]
    low_rank = [term for term in weight.terms if isinstance(term, LowRank)]
    if len(base) != 1 or not low_rank or not isinstance(base[0], Quantized | Superblocks | Levels | Dense):
        return weight, None
    left = torch.cat([dense_part(term.left) for term in low_rank], -1)
    right = torch.cat([dense_part(term.right) for term in low_rank], -2)
    return base[0], LowRank(left, right)


def dense_part(part: Tensor | Format) -> Tensor:
    """A factor, which may be quantised itself, as float32."""
    return (part if isinstance(part, Tensor) else to_dense(part)).float()


def to_dense(weight: Format) -> Tensor:
    """The matrix of a format; of a quantised one in float32, in which its codes are exact."""
    if isinstance(weight, Superblocks):
        weight = weight.to_quantized()
    if isinstance(weight, Quantized | Levels):
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


def pad_codes(q: Quantized | Superblocks | Levels, index: Tensor) -> Quantized | None:
    """A quantised matrix with columns more, which are multiplied by nothing; None where columns would move."""
    if isinstance(q, Superblocks):
        q = q.to_quantized()
    columns, width = q.size[-1], len(index)
    if (
        isinstance(q, Levels)
        or q.ndim != 2
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
