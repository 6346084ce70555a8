"""Keys rounded so that the error is orthogonal to the prompt's queries."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.cache.codec import Place
from polyad.cache.codecs.kivi import Kivi
from polyad.formats import Quantized
from polyad.formats.stored.packing import pack, unpack
from polyad.quantize import round_to_nearest


@method(
    "codec",
    name="squat",
    makes=Quantized,
    example={"bits": 2, "group": 16, "weight": 0.1, "channels": 2},
    exact={"bits": 8, "group": 4},
    instead=(
        "With a rank of a few: `kivi`, which takes no more bytes and loses less; at rank 64 Squat loses less, for"
        " a quarter more bytes."
    ),
    papers=(
        Paper(
            "Wang, Han, Xu, Srivastava",
            2025,
            "SQuat: Subspace-orthogonal KV Cache Quantization",
            "arXiv:2503.24358",
            handle="squat",
            adds="the closed-form shift of the channels that are still to be rounded",
        ),
    ),
)
class Squat(Kivi):
    """KIVI's grids, with codes of the keys chosen against ‖e‖² + ``weight`` ‖Q̂ e‖² instead of the nearest.

    Q̂ = Σ Vᵀ of ``rank`` singular values is the leading part of the queries of the call in which the first tokens
    leave the window (the prompt), all query heads of a key head together. Keys are rounded ``channels`` at a time:
    after each the channels F that remain are shifted by ``A_FF⁻¹ A_FD e_D``, with e_D the error of those that are
    done and A = I + weight Q̂ᵀ Q̂, which is the best that they can do about it. Bytes are KIVI's; the basis Q̂ is
    remembered, for each sequence. It costs 2 d² operations a token and head.

    >>> x = torch.randn(1, 1, 64, 32, generator=torch.Generator().manual_seed(0))
    >>> queries = 50 * x[..., :4, :]
    >>> plain, squat = (made(bits=2).encode(x, x, queries)[0].to_dense() - x for made in (Kivi, Squat))
    >>> bool((queries @ squat.mT).norm() < 0.75 * (queries @ plain.mT).norm())
    True
    """

    reads_queries = True

    def __init__(
        self,
        place: Place | None = None,
        *,
        bits: int = 2,
        group: int = 64,
        rank: int = 5,
        weight: float = 0.001,
        channels: int = 8,
    ) -> None:
        super().__init__(place, bits=bits, group=group)
        if rank < 1 or channels < 1:
            raise ValueError(f"rank={rank} and channels={channels} must be at least 1")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight={weight} must be a number from 0")
        self.rank, self.weight, self.channels = rank, weight, channels
        self._basis: Tensor | None = None

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Quantized, Quantized]:
        if self._basis is None:
            self._basis = self._leading_queries(queries, keys.shape[1])
        by_token = round_to_nearest(values, self.bits, group=self.group, zero_dtype=torch.float16)
        return self._quantize_keys(keys), by_token

    def _leading_queries(self, queries: Tensor, heads: int) -> Tensor:
        """Σ Vᵀ of shape (batch, heads, rank, channels)."""
        rows = queries.unflatten(1, (heads, -1)).flatten(2, 3)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        size = rows.abs().amax((-2, -1), keepdim=True)
        size = size.where(size > 0, 1)  # squares of large queries would overflow
        squares, vectors = torch.linalg.eigh((rows / size).mT @ (rows / size))
        lead = vectors * squares.clamp(min=0).sqrt().unsqueeze(-2)
        return (lead[..., -self.rank :].mT * size).contiguous()

    def _quantize_keys(self, keys: Tensor) -> Quantized:
        basis = self._basis
        assert basis is not None
        work, done = keys.to(basis.dtype), []
        errors = work[..., :0]
        for start in range(0, keys.shape[-1], self.channels):
            target = work[..., start : start + self.channels]
            if start:
                target = target + errors @ self._shifts(basis, start)[..., : target.shape[-1], :].mT
            part = round_to_nearest(target, self.bits, group=(self.group, 1), zero_dtype=torch.float16)
            done.append(part)
            errors = torch.cat([errors, work[..., start : start + self.channels] - part.to_dense()], -1)
        return _join_channels(done, keys.dtype)

    def _shifts(self, basis: Tensor, start: int) -> Tensor:
        """``A_FF⁻¹ A_FD`` for the channels F from ``start`` on and D before it, of shape (batch, heads, F, D).

        By the singular values of Q̂_F, in float64: large queries would make A too ill-conditioned to solve with.
        """
        wide = basis.double() * self.weight**0.5
        u, s, vh = torch.linalg.svd(wide[..., start:], full_matrices=False)
        seen = s > 1e-12 * s[..., :1]
        gains = torch.where(seen, s, 0) / (1 + s.square())
        return (vh.mT @ (gains.unsqueeze(-1) * (u.mT @ wide[..., :start]))).to(basis.dtype)

    def select(self, index: Tensor) -> None:
        if self._basis is not None:
            self._basis = self._basis[index]

    @property
    def state(self) -> tuple[Tensor, ...]:
        return () if self._basis is None else (self._basis,)


def _join_channels(parts: list[Quantized], dtype: torch.dtype) -> Quantized:
    """Channels side by side."""
    first = parts[0]
    codes = torch.cat([unpack(part.codes, part.bits, part.size[-1]) for part in parts], -1)
    scale = torch.cat([part.scale for part in parts], -1)
    zero = torch.cat([part.zero for part in parts if isinstance(part.zero, Tensor)], -1)
    return Quantized(pack(codes, first.bits), scale, zero, first.bits, tuple(codes.shape), first.block, dtype)
