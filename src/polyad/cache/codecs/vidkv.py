"""Keys in one bit and a half a number, values in three levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.codec import Codec, Place, Turn
from polyad.cache.eviction import largest
from polyad.formats import Format, Product, Quantized, Sparse, Sum
from polyad.formats.stored.packing import pack
from polyad.quantize import round_to_nearest


@method(
    "codec",
    name="vidkv",
    makes=Sum,
    example={"group": 16},
    papers=(
        Paper(
            "Tao, You, Sui, Qin, Wang",
            2025,
            "Plug-and-Play 1.x-Bit KV Cache Quantization for Video Large Language Models",
            "arXiv:2503.16257",
            handle="vidkv",
            adds="two bits for channels of large range, one bit in the frequency domain for the others",
        ),
    ),
)
class VidKV(Codec):
    """Two bits for some of a head's key channels, one bit of the others' spectrum, values of three levels.

    The share ``anomalous`` of channels (1, 1/2, 1/3, …) with the largest range in what leaves first, the prompt, is
    rounded as KIVI rounds keys. The others of a token are transformed together, across channels, by the orthonormal
    real Fourier transform (``spectrum=False``: not), and each coefficient keeps its signs over ``group`` tokens and
    their mean absolute value. An offset that channels share takes one coefficient, which has one sign throughout and
    keeps its mean. Values keep the levels -a, 0 and a over ``group`` tokens of a channel (``by_token``: the channels
    of a token): 0 for less than half the block's mean absolute value, a the mean of the others. The share
    ``protect`` of tokens, those that the last 64 queries at hand attend to most, keep their values in two bits.

    The authors store the real and imaginary parts of all complex coefficients, two numbers for each channel, half of
    them the others' mirror images: the real transform gives the same keys for half of their bits. Three levels are
    stored in two bits, so that values take no fewer bytes than in two bits. Departs from the authors in choosing
    channels head by head and once a sequence, and tokens by text alone.

    >>> x = torch.randn(1, 2, 64, 32, generator=torch.Generator().manual_seed(0))
    >>> keys, _ = VidKV(group=32).encode(x, x, x)
    >>> [term.bits for term in keys.terms]
    [2, 1]
    """

    def __init__(
        self,
        place: Place | None = None,  # noqa: ARG002
        *,
        group: int = 64,
        anomalous: float = 0.5,
        spectrum: bool = True,
        by_token: bool = False,
        protect: float = 0.2,
    ) -> None:
        _check.at_least("group", group, 1)
        if not 0 < anomalous <= 1 or abs(1 / anomalous - round(1 / anomalous)) > 1e-6:
            raise ValueError(f"anomalous={anomalous} must be one of 1, 1/2, 1/3, … of the channels")
        if not 0 <= protect < 1:
            raise ValueError(f"protect={protect} must be a share of the tokens, from 0 to below 1")
        self.block = self.group = group
        self.parts, self.spectrum, self.by_token, self.protect = round(1 / anomalous), spectrum, by_token, protect
        self._order: Tensor | None = None  # of a head's channels, those of the largest range first

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Format, Format]:
        if keys.shape[-1] % self.parts:
            raise ValueError(f"anomalous=1/{self.parts} of {keys.shape[-1]} channels is no whole number of them")
        if self._order is None:
            self._order = (keys.amax(-2) - keys.amin(-2)).argsort(-1, descending=True).to(torch.int16)
        first, others = self._split(keys)
        coded = [round_to_nearest(first, 2, group=(self.group, 1), zero_dtype=torch.float16)]
        coded += [_signs(x, self.group) for x in self._spectra(others)]
        return Sum(tuple(coded)), self._values(values, keys, queries)

    def _values(self, values: Tensor, keys: Tensor, queries: Tensor) -> Format:
        count = int(self.protect * values.shape[-2])
        if not count:
            return ternary(values, self.group, by_token=self.by_token)
        index = largest(_attention(queries, keys), count)  # (batch, heads, count)
        place = index.unsqueeze(-1).expand(-1, -1, -1, values.shape[-1])
        group = self.group if self.by_token else (self.group, 1)
        saved = round_to_nearest(values.gather(2, place), 2, group=group, zero_dtype=torch.float16)
        where = torch.zeros((*values.shape[:-1], count), dtype=torch.float16, device=values.device)
        where.scatter_(2, index.unsqueeze(-2), 1.0)
        rest = ternary(values.scatter(2, place, 0.0), self.group, by_token=self.by_token)
        return Sum((rest, Product((Sparse.from_dense(where), saved))))

    def keys(self, stored: Format) -> Tensor:
        first, *others = (term.to_dense() for term in _terms(stored))
        dense = first
        if others:
            spectra = torch.cat(others, -1)
            dense = torch.cat([first, spectra @ self._basis(spectra) if self.spectrum else spectra], -1)
        assert self._order is not None
        return torch.empty_like(dense).scatter_(-1, self._order.long().unsqueeze(2).expand_as(dense), dense)

    def scores(self, query: Tensor, stored: Format, turn: Turn | None) -> Tensor:  # noqa: ARG002 - keys are rotated
        first, others = self._split(query)
        rows = (first, *self._spectra(others))  # whose products with keys the transform leaves as they were
        return torch.stack([term.linear(q) for term, q in zip(_terms(stored), rows, strict=True)]).sum(0)

    def mix(self, weights: Tensor, stored: Format) -> Tensor:
        if not isinstance(stored, Sum):
            return stored.combine(weights)
        rest, saved = stored.terms
        assert isinstance(saved, Product)
        where, codes = saved.factors
        assert isinstance(where, Sparse)
        tokens, count = where.shape[-2:]
        index = (where.index() % (tokens * count) // count).view(*where.shape[:-2], 1, count)
        return rest.combine(weights) + codes.combine(weights.gather(-1, index.expand(*weights.shape[:-1], -1)))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The channels of the largest range and the others of (batch, heads, tokens, channels)."""
        assert self._order is not None
        ordered = x.gather(-1, self._order.long().unsqueeze(2).expand_as(x))
        count = x.shape[-1] // self.parts
        return ordered[..., :count], ordered[..., count:]

    def _spectra(self, x: Tensor) -> tuple[Tensor, ...]:
        """The coefficients of each token's channels, in as many parts as there are channels of the largest range."""
        if self.parts == 1:
            return ()
        return (x @ self._basis(x).mT if self.spectrum else x).chunk(self.parts - 1, -1)

    @staticmethod
    def _basis(x: Tensor) -> Tensor:
        return fourier(x.shape[-1]).to(x)

    def select(self, index: Tensor) -> None:
        self._order = None if self._order is None else self._order[index]

    @property
    def state(self) -> tuple[Tensor, ...]:
        return () if self._order is None else (self._order,)


def fourier(n: int) -> Tensor:
    """The orthonormal real Fourier basis, (n, n) in float64: a row for a frequency's cosine or sine."""
    step = torch.arange(n, dtype=torch.float64)
    angle = 2 * math.pi / n * torch.outer(torch.arange(1, n // 2 + 1, dtype=torch.float64), step)
    rows = torch.cat([torch.ones(1, n, dtype=torch.float64), angle.cos(), angle[: (n - 1) // 2].sin()])
    return rows / rows.norm(dim=-1, keepdim=True)


def ternary(x: Tensor, group: int, *, by_token: bool) -> Quantized:
    """The levels -a, 0, a of each block of ``group`` tokens of a channel or channels of a token, in two bits."""
    lines = x if by_token else x.mT
    blocks = lines.unflatten(-1, (-1, math.gcd(group, lines.shape[-1])))
    size = blocks.abs()
    nonzero = size > 0.5 * size.mean(-1, keepdim=True)
    level = (size * nonzero).sum(-1) / nonzero.sum(-1).clamp(min=1)
    codes = (torch.where(nonzero, blocks.sign(), 0) + 2).to(torch.uint8).flatten(-2)  # two bits stand for code - 2
    codes, scale = (codes, level) if by_token else (codes.mT, level.mT)
    block = (1, 1, 1, blocks.shape[-1]) if by_token else (1, 1, blocks.shape[-1], 1)
    return Quantized(pack(codes, 2), scale.to(torch.bfloat16), None, 2, tuple(x.shape), block, x.dtype)


def _signs(x: Tensor, group: int) -> Quantized:
    """Signs of (batch, heads, tokens, channels), times the mean absolute value of a channel's block."""
    level = x.unflatten(-2, (-1, group)).abs().mean(-2)
    codes = pack((x >= 0).to(torch.uint8), 1)  # one bit stands for code - 1/2
    return Quantized(codes, (2 * level).to(torch.bfloat16), None, 1, tuple(x.shape), (1, 1, group, 1), x.dtype)


def _attention(queries: Tensor, keys: Tensor) -> Tensor:
    """The mean attention of the last 64 queries to each of the tokens, (batch, heads, tokens)."""
    rows = queries[..., -64:, :].unflatten(1, (keys.shape[1], -1)).flatten(2, 3) * keys.shape[-1] ** -0.5
    return (rows @ keys.mT).float().softmax(-1).mean(-2)


def _terms(stored: Format) -> tuple[Format, ...]:
    assert isinstance(stored, Sum)
    return stored.terms
