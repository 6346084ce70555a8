"""Einsum with modes that fuse, ``ac,bd->(ab)(cd)``, on contraction orders that are found once and kept."""

from __future__ import annotations

import bisect
import functools
import math
import re
from collections import Counter
from collections.abc import Sequence

import opt_einsum
import torch
from torch import Tensor

from polyad.einsum.order import order
from polyad.einsum.steps import PairStep, contraction_steps, plain, run

MANY_ROWS = 1024
"""Rows assumed where their number is not known (under tracing): it decides the order alone."""

Shapes = Sequence[tuple[int, ...]]
Plan = tuple[tuple[tuple[int, ...], str], ...]
Compiled = tuple[str | None, tuple[PairStep, ...], tuple[int, ...] | None, tuple[int, ...] | None]


def symbol(i: int) -> str:
    """A letter of its own for every integer; negative ones never meet those counted up from 0.

    >>> symbol(0), symbol(1) != symbol(-1)
    ('a', True)
    """
    return opt_einsum.get_symbol(i if i >= 0 else 40_000 - i)


def groups(output: str) -> tuple[str, ...]:
    """The output's modes: ``(ab)(cd)`` gives ab and cd, ``abc`` gives a, b and c."""
    return tuple(mode.strip("()") for mode in re.findall(r"\([^()]+\)|[^()]", output))


@torch.compiler.assume_constant_result  # a tracer takes the order as given and does not look inside
def contraction_plan(inputs: str, output: str, shapes: Shapes) -> Plan:
    """The steps as einsums in the letters that torch knows, for a tracer: operands' places, and an einsum.

    The places are popped and the result is appended.
    """
    return tuple((places, plain(step)) for places, step in _order_steps(inputs, output, shapes))


@functools.lru_cache(maxsize=4096)
def _order_steps(inputs: str, output: str, shapes: Shapes) -> Plan:
    """The order in which to contract, found once for each expression and shapes: places, popped, and an einsum."""
    terms = inputs.split(",")
    if len(terms) == 1:
        return (((0,), f"{inputs}->{output}"),)
    live, numbers, ordered = Counter(output), list(range(len(terms))), []
    for term in terms:
        live.update(set(term))
    for i, j in order(tuple(terms), output, _sizes(terms, shapes)):
        a, b = terms[i], terms[j]
        live.subtract(set(a))
        live.subtract(set(b))
        first, second = bisect.bisect_left(numbers, i), bisect.bisect_left(numbers, j)  # numbers ascend
        for place in sorted((first, second), reverse=True):
            del numbers[place]
        left = "".join(c for c in dict.fromkeys(a + b) if live[c]) if numbers else output
        ordered.append(((first, second - (second > first)), f"{a},{b}->{left}"))
        terms.append(left)
        numbers.append(len(terms) - 1)
        live.update(set(left))
    return tuple(ordered)


@functools.lru_cache(maxsize=4096)
def _compile(expression: str, *shapes: tuple[int, ...]) -> Compiled:
    """The steps of an expression, the axes that put their result in order and the shape that fuses its modes."""
    inputs, output = expression.split("->")
    terms, modes = inputs.split(","), groups(output)
    sizes = _sizes(terms, shapes)
    fused = tuple([math.prod([sizes[c] for c in mode]) for mode in modes]) if len(modes) < len(output) else None
    if len(terms) == 1:
        return plain(f"{inputs}->{''.join(modes)}"), (), None, fused
    contraction, letters = contraction_steps(terms, "".join(modes), sizes, order(terms, "".join(modes), sizes))
    axes = tuple([letters.index(c) for mode in modes for c in mode])
    return None, contraction, None if axes == tuple(range(len(axes))) else axes, fused


def _sizes(terms: Sequence[str], shapes: Shapes) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for letters, shape in zip(terms, shapes, strict=True):
        if len(letters) != len(shape) or any(
            sizes.setdefault(c, n) != n for c, n in zip(letters, shape, strict=True)
        ):
            raise ValueError(
                f"operands of shapes {[tuple(shape) for shape in shapes]} do not fit {','.join(terms)}: "
                "one dimension for every letter, and one size for each letter, are needed"
            )
    return sizes


@functools.lru_cache(maxsize=4096)
def operations(expression: str, shapes: Shapes) -> int:
    """Floating-point operations on the chosen order; a multiplication and an addition are two."""
    inputs, output = expression.split("->")
    sizes = _sizes(inputs.split(","), shapes)
    total = 0
    for _, step in _order_steps(inputs, "".join(groups(output)), shapes):
        taken, result = step.split("->")
        letters = set(taken) - {","}
        each = taken.count(",") + bool(letters - set(result))  # products of the operands, and a sum if letters go
        total += each * math.prod(sizes[letter] for letter in letters)
    return total


def _is_known(n: int | torch.SymInt) -> bool:
    """True if the planner may see this size. A tracer passes symbols off as int, so the tracer itself is asked."""
    if isinstance(n, int) and not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return has_static_value(n)


def _planning_shapes(inputs: str, operands: tuple[Tensor, ...]) -> Shapes:
    """The operands' shapes for the planner: a letter's size where any operand knows it, else ``MANY_ROWS``."""
    sizes: dict[str, int] = {}
    for letters, x in zip(inputs.split(","), operands, strict=True):
        for letter, n in zip(letters, x.shape, strict=True):
            if _is_known(n):
                sizes[letter] = int(n)
    return tuple([tuple([sizes.get(letter, MANY_ROWS) for letter in letters]) for letters in inputs.split(",")])


def contract(expression: str, *operands: Tensor) -> Tensor:
    """Evaluate ``inputs->output``; each pair of brackets in the output fuses its letters into one mode.

    Operands may share a dtype only. The order is found once for each expression and shapes, and with it everything
    but the products themselves; the order is the same every time. A traced dimension counts as 1,024 in that choice.

    >>> contract("ac,bd->(ab)(cd)", torch.ones(2, 3), torch.ones(4, 5)).shape
    torch.Size([8, 15])
    """
    kind = operands[0].device.type
    if torch.compiler.is_compiling() or (kind != "meta" and torch.is_autocast_enabled(kind)):
        return _contract_traced(
            expression, operands
        )  # autocast leaves operands of two dtypes, which einsum reconciles
    try:
        single, contraction, axes, fused = _compile(expression, *[x.shape for x in operands])
    except TypeError:  # symbols among the sizes cannot be looked up
        return _contract_traced(expression, operands)
    result = run(contraction, operands) if single is None else torch.einsum(single, operands[0])
    if axes is not None:
        result = result.permute(axes)
    return result if fused is None else result.reshape(fused)


def _contract_traced(expression: str, operands: tuple[Tensor, ...]) -> Tensor:
    """``contract`` for a tracer, which may know some sizes by symbols only."""
    inputs, output = expression.split("->")
    modes = groups(output)
    shapes = _planning_shapes(inputs, operands)
    stack = list(operands)
    for places, step in contraction_plan(inputs, "".join(modes), shapes):
        taken = [stack.pop(place) for place in places]
        stack.append(torch.einsum(step, *taken))
    result = stack[0]
    if any(len(mode) != 1 for mode in modes):
        sizes: dict[str, int] = {}
        for letters, x in zip(inputs.split(","), operands, strict=True):
            sizes.update(zip(letters, x.shape, strict=True))
        result = result.reshape([math.prod([sizes[letter] for letter in mode]) for mode in modes])
    return result
