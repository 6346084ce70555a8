"""Contractions of two tensors, worked out once as a permutation, a reshape and a matrix product each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from polyad.einsum.order import Pairs


class Step(NamedTuple):
    """One contraction: where its operands stand, how they are laid out, the product, and the shape of its result.

    ``product`` multiplies the two laid-out operands; an ``einsum`` in its place takes them as they stand.
    """

    first: int
    second: int
    product: str
    first_axes: tuple[int, ...] | None
    first_shape: tuple[int, ...] | None
    second_axes: tuple[int, ...] | None
    second_shape: tuple[int, ...] | None
    shape: tuple[int, ...] | None


def run(steps: Sequence[Step], operands: Sequence[Tensor]) -> Tensor:
    """Carry the steps out; what a step used is let go of."""
    held: list[Tensor | None] = list(operands)
    mm, bmm, mul = torch.mm, torch.bmm, torch.mul
    for i, j, product, first_axes, first_shape, second_axes, second_shape, shape in steps:
        a, b = held[i], held[j]
        held[i] = held[j] = None
        assert a is not None
        assert b is not None
        if first_axes is not None:
            a = a.permute(first_axes)
        if first_shape is not None:
            a = a.reshape(first_shape)
        if second_axes is not None:
            b = b.permute(second_axes)
        if second_shape is not None:
            b = b.reshape(second_shape)
        if product == "mm":
            c = mm(a, b)
        elif product == "mul":
            c = mul(a, b)
        elif product == "bmm":
            c = bmm(a, b)
        else:
            c = torch.einsum(product, a, b)
        held.append(c if shape is None else c.reshape(shape))
    result = held[-1]
    assert result is not None
    return result


def steps(terms: Sequence[str], output: str, sizes: dict[str, int], pairs: Pairs) -> tuple[tuple[Step, ...], str]:
    """The steps of an order, and the letters of their result as it comes; every letter is in some operand's term.

    Layouts are chosen so that few numbers move: the letters summed over follow the operand that is costlier to
    rearrange, and results stand as the step that uses them wants them.
    """
    held, after = _letters(terms, output, pairs)
    wanted = {}  # for each tensor the letters that its next step sums over
    for k, (i, j) in enumerate(pairs):
        summed = held[i] & held[j] - after[k]
        wanted[i] = wanted[j] = summed
    laid: list[str] = list(terms)
    made: list[Step] = []
    for k, (i, j) in enumerate(pairs):
        target = output if k == len(pairs) - 1 else ""
        later = wanted.get(len(terms) + k, set())
        step, letters = _step(i, j, laid[i], laid[j], after[k], sizes, later, target)
        made.append(step)
        laid.append(letters)
    return tuple(made), laid[-1]


def _letters(terms: Sequence[str], output: str, pairs: Pairs) -> tuple[list[set[str]], list[set[str]]]:
    """The letters of every tensor, and those that every step leaves."""
    held = [set(term) for term in terms]
    live = dict(enumerate(held))
    after: list[set[str]] = []
    for i, j in pairs:
        both = live.pop(i) | live.pop(j)
        needed = set(output).union(*live.values())
        after.append(both & needed)
        held.append(after[-1])
        live[len(held) - 1] = after[-1]
    return held, after


def _step(
    i: int, j: int, a: str, b: str, left: set[str], sizes: dict[str, int], later: set[str], target: str
) -> tuple[Step, str]:
    shared = set(a) & set(b)
    alone = (set(a) ^ set(b)) - left
    if alone or len(set(a)) < len(a) or len(set(b)) < len(b):
        letters = "".join(c for c in dict.fromkeys(a + b) if c in left)
        return Step(i, j, einsum(a, b, letters), None, None, None, None, None), letters
    summed = shared - left
    if not summed:
        return _product(i, j, a, b, sizes, target)
    return _matmul(i, j, a, b, (shared & left, summed), sizes, later, target)


def _product(i: int, j: int, a: str, b: str, sizes: dict[str, int], target: str) -> tuple[Step, str]:
    """Nothing is summed: a product with broadcasting."""
    letters = target or "".join(dict.fromkeys(a + b))
    layouts = []
    for term in (a, b):
        order = [term.index(c) for c in letters if c in term]
        axes = None if order == sorted(order) else tuple(order)
        shape = tuple([sizes[c] if c in term else 1 for c in letters])
        layouts += [axes, None if len(term) == len(letters) else shape]
    return Step(i, j, "mul", layouts[0], layouts[1], layouts[2], layouts[3], None), letters


def _matmul(
    i: int,
    j: int,
    a: str,
    b: str,
    shared: tuple[set[str], set[str]],
    sizes: dict[str, int],
    later: set[str],
    target: str,
) -> tuple[Step, str]:
    """A matrix product, batched over the letters that both keep."""
    batch, summed = (min(_orders(part, a, b), key=lambda order: _moved(order, part, a, b, sizes)) for part in shared)
    options = []
    for first, second in ((a, b), (b, a)):
        rows = _kept(first, batch, summed, shared, later, target)
        columns = _kept(second, batch, summed, shared, later, target)
        letters = batch + rows + columns
        options.append(
            (letters != target if target else not _at_an_end(later, letters), first is b, rows, columns, letters)
        )
    _, swapped, rows, columns, letters = min(options)
    if swapped:
        i, j, a, b = j, i, b, a
    kind = "bmm" if batch else "mm"
    n, m, k, p = (math.prod([sizes[c] for c in part]) for part in (rows, columns, summed, batch))
    lead = (p,) if batch else ()
    first = _layout(a, batch + rows + summed, (*lead, n, k), (batch, rows, summed))
    second = _layout(b, batch + summed + columns, (*lead, k, m), (batch, summed, columns))
    plain = len(letters) == len(lead) + 2 and len(rows) == len(columns) == 1 and len(batch) == len(lead)
    shape = None if plain else tuple([sizes[c] for c in letters])
    return Step(i, j, kind, *first, *second, shape), letters


def _orders(part: set[str], a: str, b: str) -> tuple[str, str]:
    return "".join(c for c in a if c in part), "".join(c for c in b if c in part)


def _moved(order: str, part: set[str], a: str, b: str, sizes: dict[str, int]) -> int:
    """The numbers to rearrange if the letters that two tensors share are taken in this order."""
    return sum(
        math.prod([sizes[c] for c in term])
        for term in (a, b)
        if "".join(c for c in term if c in part) != order or not (term.startswith(order) or term.endswith(order))
    )


def _kept(term: str, batch: str, summed: str, shared: tuple[set[str], set[str]], later: set[str], target: str) -> str:
    """The letters of one side that a matrix product leaves; reordered for the next step where that is free."""
    own = [c for c in term if c not in shared[0] and c not in shared[1]]
    free = not ("".join(own) in term and (batch + summed in term or summed in term))
    if free and target:
        own.sort(key=target.index)
    elif free:
        own.sort(key=lambda c: c in later)
    return "".join(own)


def _at_an_end(letters: set[str], order: str) -> bool:
    n = len(letters)
    return set(order[:n]) == letters or set(order[len(order) - n :]) == letters


def _layout(
    term: str, order: str, shape: tuple[int, ...], groups: tuple[str, ...]
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """The permutation and the shape that make a term's tensor a matrix, None where it is one already."""
    axes = None if term == order else tuple([term.index(c) for c in order])
    is_matrix = len(term) == len(shape) and all(len(group) == 1 for group in groups if group or len(shape) == 2)
    return axes, None if is_matrix else shape


def einsum(a: str, b: str, letters: str) -> str:
    """The contraction in the letters that torch knows."""
    names = {c: chr(97 + n) if n < 26 else chr(39 + n) for n, c in enumerate(dict.fromkeys(a + b))}
    return "->".join(
        (",".join("".join(names[c] for c in term) for term in (a, b)), "".join(names[c] for c in letters))
    )
