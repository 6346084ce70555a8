"""Products with rows of several heads side by side that are stored as coordinates times a basis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad.formats import Dense, Format, LowRank, Sum


def join_heads(x: Tensor, groups: int = 1) -> Tensor:
    """(batch, heads, tokens, d) with the heads of each group side by side: (batch, groups, tokens, s d)."""
    return x.unflatten(1, (groups, -1)).transpose(2, 3).flatten(3)


def split_heads(rows: Tensor, heads: int) -> Tensor:
    """The inverse of ``join_heads``."""
    return rows.unflatten(-1, (heads // rows.shape[1], -1)).transpose(2, 3).flatten(1, 2)


def joined_coordinates(stored: Format, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All coordinates side by side, (batch, groups, tokens, r), and the basis, (batch, groups, r, s d)."""
    terms = _terms(stored)
    latents, bases = zip(*((latent.to_dense().to(dtype), out.to(dtype)) for latent, out in terms), strict=True)
    return (latents[0], bases[0]) if len(terms) == 1 else (torch.cat(latents, -1), torch.cat(bases, -2))


def scores(query: Tensor, stored: Format) -> Tensor:
    """``query xᵀ`` (batch, heads, rows, tokens) for x of heads side by side, stored as coordinates times a basis."""
    total: Any = 0
    for latent, out in _terms(stored):
        groups = out.shape[1]
        inner = query.unflatten(1, (groups, -1)) @ out.to(query.dtype).unflatten(-1, (-1, query.shape[-1])).permute(
            0, 1, 3, 4, 2
        )
        total = total + latent.linear(inner.flatten(2, 3)).unflatten(2, inner.shape[2:4]).flatten(1, 2)
    return total


def mix(weights: Tensor, stored: Format, width: int) -> Tensor:
    """``weights x`` (batch, heads, rows, width) for x of heads side by side, stored as coordinates times a basis."""
    total: Any = 0
    for latent, out in _terms(stored):
        parted = weights.unflatten(1, (out.shape[1], -1))
        inner = latent.combine(parted.flatten(2, 3)).unflatten(2, parted.shape[2:4])
        total = total + (inner @ out.to(weights.dtype).unflatten(-1, (-1, width)).transpose(2, 3)).flatten(1, 2)
    return total


def _terms(stored: Any) -> list[tuple[Format, Tensor]]:
    """Pairs of coordinates, which grow with the tokens, and the basis they multiply, (batch, groups, r, s d)."""
    if isinstance(stored, Sum):
        return [pair for term in stored.terms for pair in _terms(term)]
    if isinstance(stored, Dense):
        eye = torch.eye(stored.shape[-1], dtype=stored.dtype, device=stored.device)
        return [(stored, eye.expand(*stored.shape[:2], -1, -1))]
    if isinstance(stored, LowRank):
        return [(Dense(stored.left), stored.right)]
    return [(stored.factors[0], stored.factors[1].to_dense())]
