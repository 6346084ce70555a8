"""Keys and values as codes, a low-rank part of what the codes miss, and outliers."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.codec import Codec, Place
from polyad.cache.codecs.kivi import Kivi
from polyad.formats import Format, LowRank, Sparse, Sum


@method(
    "codec",
    name="gear",
    makes=Sum,
    example={"bits": 2, "group": 16, "rank": 2, "outliers": 0.1},
    exact={"bits": 8, "group": 4},
    instead=(
        "At four bits: `kivi` of four bits, which takes fewer bytes and loses less; GEAR's low-rank part and "
        "outliers pay at two bits."
    ),
    papers=(
        Paper(
            "Kang, Zhang, Kundu, Jeong, Liu, Krishna, Zhao",
            2024,
            "GEAR: An Efficient KV Cache Compression Recipe for Near-Lossless Generative Inference of LLM",
            "arXiv:2403.05527",
            handle="gear",
            adds="codes without outliers, the leading part of their error head by head, and the outliers",
        ),
    ),
)
class Gear(Codec):
    """Codes of X without its outliers (as ``Kivi`` makes them), plus a rank-r part of their error, plus the outliers.

    ``outliers`` is the share of numbers held exactly, half of them the largest and half the smallest: of every
    channel along a block's tokens for keys, of every token along all heads' channels for values. In the codes
    the mean of that channel or token, outliers included, stands in their place, as in the authors' code, so that a
    block's grid spans what its other numbers do; the sparse term corrects what the codes make of that. The low-rank
    term is found by ``max_iter`` rounds of subspace iteration on the error of the rest, head by head: ``rank`` for
    what leaves the window at once (the prompt), half of it for single blocks of ``group`` tokens while decoding.
    ``outliers=0`` is GEAR-L.

    Bytes a number: bits / 8 and 4 / group for the codes; 2 rank / channels and 2 rank / tokens for the factors, in
    float16; six for each outlier, or 1/8 a number where that is less than their indices. Departs from the paper in
    orthonormal columns in every round instead of the last, and in that keys and values leave the window together.

    >>> x = torch.randn(1, 2, 64, 32, generator=torch.Generator().manual_seed(0))
    >>> errors = [(Gear(group=32, rank=r).encode(x, x, x)[0].to_dense() - x).norm() for r in (0, 8)]
    >>> bool(errors[1] < 0.9 * errors[0])
    True
    """

    def __init__(
        self,
        place: Place | None = None,  # noqa: ARG002
        *,
        bits: int = 2,
        group: int = 64,
        rank: int = 4,
        outliers: float = 0.02,
        max_iter: int = 3,
    ) -> None:
        _check.at_least("rank", rank, 0)
        if not 0 <= outliers < 1:
            raise ValueError(f"outliers={outliers} must be a share of the numbers, from 0 to below 1")
        _check.at_least("max_iter", max_iter, 1)
        self.codes = Kivi(bits=bits, group=group)
        self.block, self.rank, self.outliers, self.max_iter = group, rank, outliers, max_iter

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Format, Format]:
        extremes = [_extremes(keys, self.outliers, by_token=False), _extremes(values, self.outliers, by_token=True)]
        inner = [
            x if mask is None else _replace_outliers(x, mask, by_token=by_token)
            for x, mask, by_token in zip((keys, values), extremes, (False, True), strict=True)
        ]
        coded = self.codes.encode(inner[0], inner[1], queries)
        terms = [self._sum(*parts) for parts in zip((keys, values), coded, extremes, strict=True)]
        return terms[0], terms[1]

    def _sum(self, x: Tensor, codes: Format, mask: Tensor | None) -> Format:
        missed = x - codes.to_dense()
        if bool((missed.abs() > torch.finfo(torch.float16).max).any()):
            raise ValueError(
                f"keys or values of up to {float(x.abs().max()):.3g} leave errors beyond 65504, the largest number "
                "of the float16 in which gear stores them; use the codec kivi, which scales its codes"
            )
        terms = [codes]
        if mask is not None:
            terms.append(Sparse.from_dense(missed.to(torch.float16), mask))
            missed = missed.masked_fill(mask, 0)
        rank = self.rank if x.shape[-2] > self.block else -(-self.rank // 2)
        if rank:
            terms.append(subspace_iteration(missed, min(rank, *x.shape[-2:]), self.max_iter))
        return Sum(tuple(terms)) if len(terms) > 1 else codes


def subspace_iteration(x: Tensor, rank: int, max_iter: int) -> LowRank:
    """Nearly the best factors of this rank of every matrix of a batch (*batch, n, m), in float16."""
    _check.finite("x", x)
    work = x.to(torch.promote_types(x.dtype, torch.float32))
    start = torch.randn(x.shape[-1], rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right = start.to(work).expand(*x.shape[:-2], -1, -1)
    for _ in range(max_iter):
        left = torch.linalg.qr(work @ right).Q  # of zeros too this is orthonormal
        right = torch.linalg.qr(work.mT @ left).Q
    left = work @ right
    return LowRank(left.to(torch.float16), right.mT.to(torch.float16).contiguous())


def _extremes(x: Tensor, share: float, *, by_token: bool) -> Tensor | None:
    """A mask of the largest and smallest numbers, (batch, heads, tokens, channels); None where there are none."""
    lines = x.transpose(1, 2).flatten(2) if by_token else x.transpose(-1, -2)
    count = round(share / 2 * lines.shape[-1])
    if not count:
        return None
    order = lines.argsort(-1)
    ends = torch.cat([order[..., :count], order[..., -count:]], -1)
    mask = torch.zeros_like(lines, dtype=torch.bool).scatter_(-1, ends, True)
    return mask.unflatten(2, (x.shape[1], -1)).transpose(1, 2) if by_token else mask.transpose(-1, -2)


def _replace_outliers(x: Tensor, mask: Tensor, *, by_token: bool) -> Tensor:
    """x with the mean of the line in which they are extreme, themselves included, in the place of outliers."""
    return torch.where(mask, x.mean((1, 3) if by_token else -2, keepdim=True), x)
