"""Contractions of two tensors, worked out once down to the axes and shapes that torch needs."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import (
    _VF,  # pyright: ignore[reportAttributeAccessIssue]
    Tensor,
)

from polyad.einsum.order import Pairs

NARROW = 8
"""From how many columns a matrix is worth a product of its own."""


class PairStep(NamedTuple):
    """One contraction: the numbers of its operands, the product, its arguments, and the shape of its result.

    ``dot`` sums over the axes of the two; ``mul``, ``bmm`` and ``within`` multiply operands that are permuted and
    reshaped before, where that is not None: entry by entry, matrices in pairs, and one matrix with many. Anything
    else is an einsum of two operands as they stand.
    """

    first: int
    second: int
    product: str
    first_axes: tuple[int, ...] | None = None
    second_axes: tuple[int, ...] | None = None
    first_shape: tuple[int, ...] | None = None
    second_shape: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None


def run(contraction: Sequence[PairStep], operands: Sequence[Tensor]) -> Tensor:
    """Carry out the steps; the operands of a step are released after it."""
    tensors: list[Tensor] = list(operands)
    gone = tensors[0].new_empty(0)
    dot = cast(Any, _VF).tensordot  # torch.tensordot without its checks, a third of its time
    for step in contraction:
        a, b = tensors[step[0]], tensors[step[1]]
        tensors[step[0]] = tensors[step[1]] = gone
        product = step[2]
        if product == "dot":
            tensors.append(dot(a, b, step[3], step[4]))
            continue
        if "," in product:
            tensors.append(torch.einsum(product, a, b))
            continue
        a, b = _lay_out(a, step.first_axes, step.first_shape), _lay_out(b, step.second_axes, step.second_shape)
        c = a * b if product == "mul" else torch.bmm(a if product == "bmm" else a.expand(len(b), -1, -1), b)
        tensors.append(c if step.shape is None else c.reshape(step.shape))
    return tensors[-1]


def _lay_out(x: Tensor, axes: tuple[int, ...] | None, shape: tuple[int, ...] | None) -> Tensor:
    if axes is not None:
        x = x.permute(axes)
    return x if shape is None else x.reshape(shape)


def contraction_steps(
    terms: Sequence[str], output: str, sizes: dict[str, int], pairs: Pairs
) -> tuple[tuple[PairStep, ...], str]:
    """The steps of an order, and the letters of their result as it comes; every letter is in some operand's term.

    Layouts are chosen so that few numbers move: the letters summed over follow the operand that is costlier to
    rearrange, and results stand as the step that uses them wants them.
    """
    letters_of, after = _letters(terms, output, pairs)
    wanted = {}  # for each tensor the letters that its next step sums over
    for k, (i, j) in enumerate(pairs):
        summed = letters_of[i] & letters_of[j] - after[k]
        wanted[i] = wanted[j] = summed
    laid: list[str] = list(terms)
    listed: list[PairStep] = []
    for k, (i, j) in enumerate(pairs):
        target = output if k == len(pairs) - 1 else ""
        later = wanted.get(len(terms) + k, set())
        step, letters = _step(i, j, laid[i], laid[j], after[k], sizes, later, target)
        listed.append(step)
        laid.append(letters)
    return tuple(listed), laid[-1]


def _letters(terms: Sequence[str], output: str, pairs: Pairs) -> tuple[list[set[str]], list[set[str]]]:
    """The letters of every tensor, and those that every step leaves."""
    sets = [set(term) for term in terms]
    live = Counter(output)  # how many of the tensors and of the output have a letter
    for term in sets:
        live.update(term)
    after: list[set[str]] = []
    for i, j in pairs:
        live.subtract(sets[i])
        live.subtract(sets[j])
        after.append({c for c in sets[i] | sets[j] if live[c]})
        sets.append(after[-1])
        live.update(after[-1])
    return sets, after


def _step(
    i: int, j: int, a: str, b: str, left: set[str], sizes: dict[str, int], later: set[str], target: str
) -> tuple[PairStep, str]:
    """One step and the letters of its result; ``later`` are those that are summed next."""
    shared = set(a) & set(b)
    alone = (set(a) ^ set(b)) - left
    if alone or len(set(a)) < len(a) or len(set(b)) < len(b):
        letters = "".join(c for c in dict.fromkeys(a + b) if c in left)
        return PairStep(i, j, plain(f"{a},{b}->{letters}")), letters
    if shared <= left:
        return _broadcast_step(i, j, a, b, sizes, target)
    batch, summed = (
        min(_orders(part, a, b), key=lambda order: _numbers_moved(order, a, b, sizes))
        for part in (shared & left, shared - left)
    )
    rows, columns = ("".join(c for c in term if c not in shared) for term in (a, b))
    if not batch:
        within = _middle_step(i, j, a, b, summed, sizes) or _middle_step(j, i, b, a, summed, sizes)
        if within is not None:
            return within
    straight, swapped = batch + rows + columns, batch + columns + rows
    if swapped == target or (straight != target and _at_an_end(later, swapped) > _at_an_end(later, straight)):
        i, j, a, b, rows, columns, straight = j, i, b, a, columns, rows, swapped
    if not batch:
        axes = (tuple([term.index(c) for c in summed]) for term in (a, b))
        return PairStep(i, j, "dot", *axes), straight
    return _matmul_step(i, j, a, b, (batch, rows, columns, summed), sizes), straight


def _broadcast_step(i: int, j: int, a: str, b: str, sizes: dict[str, int], target: str) -> tuple[PairStep, str]:
    """Nothing is summed: a product with broadcasting."""
    letters = target or "".join(dict.fromkeys(a + b))
    axes, shapes = [], []
    for term in (a, b):
        order = [term.index(c) for c in letters if c in term]
        axes.append(None if order == sorted(order) else tuple(order))
        shape = tuple([sizes[c] if c in term else 1 for c in letters])
        shapes.append(None if len(term) == len(letters) else shape)
    return PairStep(i, j, "mul", *axes, *shapes), letters


def _matmul_step(i: int, j: int, a: str, b: str, parts: tuple[str, str, str, str], sizes: dict[str, int]) -> PairStep:
    """A matrix product for every value of the letters that both keep."""
    batch, rows, columns, summed = parts
    p, n, m, k = (math.prod([sizes[c] for c in part]) for part in parts)
    first, second = _axes(a, batch + rows + summed), _axes(b, batch + summed + columns)
    wide = [None if len(x) == len(y) == len(z) == 1 else shape for x, y, z, shape in (
        (batch, rows, summed, (p, n, k)), (batch, summed, columns, (p, k, m)), (batch, rows, columns, (p, n, m)),
    )]  # fmt: skip
    shape = None if wide[2] is None else tuple([sizes[c] for c in batch + rows + columns])
    return PairStep(i, j, "bmm", first, second, wide[0], wide[1], shape)


def _middle_step(i: int, j: int, a: str, b: str, summed: str, sizes: dict[str, int]) -> tuple[PairStep, str] | None:
    """A product that sums over letters in the middle of a large b, which is not moved; a is rearranged."""
    before, middle, behind = b.partition(summed)
    rows = "".join(c for c in a if c not in summed)
    p, n, m, k = (math.prod([sizes[c] for c in part]) for part in (before, rows, behind, summed))
    if not (middle and before and behind and rows) or m < NARROW or n * k > p * m:
        return None
    axes, shape = _axes(a, rows + summed), tuple([sizes[c] for c in before + rows + behind])
    return PairStep(i, j, "within", axes, None, (n, k), (p, k, m), shape), before + rows + behind


def _axes(term: str, order: str) -> tuple[int, ...] | None:
    return None if term == order else tuple([term.index(c) for c in order])


def _orders(part: set[str], a: str, b: str) -> tuple[str, str]:
    return "".join(c for c in a if c in part), "".join(c for c in b if c in part)


def _numbers_moved(order: str, a: str, b: str, sizes: dict[str, int]) -> int:
    """The numbers to rearrange if the letters that two tensors share are taken in this order."""
    stay = (term.startswith(order) or term.endswith(order) for term in (a, b))
    return sum(math.prod([sizes[c] for c in term]) for term, stays in zip((a, b), stay, strict=True) if not stays)


def _at_an_end(letters: set[str], order: str) -> bool:
    n = len(letters)
    return set(order[:n]) == letters or set(order[len(order) - n :]) == letters


def plain(step: str) -> str:
    """An einsum in the letters that torch knows."""
    letters = dict.fromkeys(c for c in step if c not in ",->")
    names = dict(zip(letters, string.ascii_letters, strict=False))
    return "".join(names.get(c, c) for c in step)
