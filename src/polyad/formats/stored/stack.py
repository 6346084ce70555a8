"""One weight in the place of several that read the same input: their rows below each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from polyad.formats.composed.sum import Sum
from polyad.formats.format import Format
from polyad.formats.stored.dense import Dense
from polyad.formats.stored.quantized import Quantized


def stack_rows(weights: Sequence[Format | Tensor]) -> Format | Tensor | None:
    """The weight (n_1 + n_2 + …, m) whose product is the concatenation of those of the weights (n_i, m).

    None where no single weight of one kind is that: other kinds, columns, dtypes, devices or grids of codes.

    >>> stack_rows([torch.ones(2, 3), torch.zeros(1, 3)]).shape
    torch.Size([3, 3])
    >>> stack_rows([torch.ones(2, 3), torch.ones(2, 4)]) is None
    True
    """
    if not weights:
        raise ValueError("weights is empty; give one weight or more")
    if len({(type(_plain(w)), w.shape[1:], w.ndim, w.dtype, w.device) for w in weights}) > 1 or weights[0].ndim != 2:
        return None
    first = weights[0]
    if isinstance(first, Tensor):
        return torch.cat(cast("list[Tensor]", list(weights)))
    if isinstance(first, Dense):
        return Dense(torch.cat([cast(Dense, w).weight for w in weights]))
    if isinstance(first, Quantized):
        return _stack_codes([cast(Quantized, w) for w in weights])
    return _stack_terms([cast(Sum, w) for w in weights]) if isinstance(first, Sum) else None


def _plain(weight: Format | Tensor) -> Format | Tensor:
    return weight.data if isinstance(weight, Tensor) else weight  # a parameter is a tensor like others


def _stack_terms(sums: list[Sum]) -> Sum | None:
    if len({len(one.terms) for one in sums}) > 1:
        return None
    terms = [stack_rows(terms) for terms in zip(*[one.terms for one in sums], strict=True)]
    return None if None in terms else Sum(cast("tuple[Format, ...]", tuple(terms)))


def _stack_codes(parts: list[Quantized]) -> Quantized | None:
    first = parts[0]
    grids = {
        (p.bits, _tall(p), p.block[1] if p.block[1] < p.size[1] else 0, p.scale.dtype, _zero_kind(p)) for p in parts
    }
    if len(grids) > 1 or any(p.size[0] % _tall(p) for p in parts[:-1]):
        return None
    zero = first.zero
    if isinstance(zero, Tensor):
        zero = torch.cat([cast(Tensor, p.zero) for p in parts])
    return replace(
        first,
        codes=torch.cat([p.codes for p in parts]),
        scale=torch.cat([p.scale for p in parts]),
        zero=zero,
        size=(sum(p.size[0] for p in parts), first.size[1]),
    )


def _tall(part: Quantized) -> int:
    return part.block[0]


def _zero_kind(part: Quantized) -> object:
    return part.zero.dtype if isinstance(part.zero, Tensor) else part.zero
