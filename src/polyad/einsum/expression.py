"""Einsum with modes that fuse, ``ac,bd->(ab)(cd)``, on contraction orders that are found once and kept."""

from __future__ import annotations

import functools
import math
import re
import string

import opt_einsum
import torch
from torch import Tensor

MANY_ROWS = 1024
"""Rows assumed where their number is not known (under tracing): it decides the order alone."""

Shapes = tuple[tuple[int, ...], ...]
Plan = tuple[tuple[tuple[int, ...], str, str], ...]


def symbol(i: int) -> str:
    """A letter of its own for every integer; negative ones never meet those counted up from 0.

    >>> symbol(0), symbol(1) != symbol(-1)
    ('a', True)
    """
    return opt_einsum.get_symbol(i if i >= 0 else 40_000 - i)


def groups(output: str) -> tuple[str, ...]:
    """The output's modes: ``(ab)(cd)`` gives ab and cd, ``abc`` gives a, b and c."""
    return tuple(found.strip("()") for found in re.findall(r"\([^()]+\)|[^()]", output))


@torch.compiler.assume_constant_result  # a tracer takes the order as given and does not look inside
def plan(inputs: str, output: str, shapes: Shapes) -> Plan:
    """The order in which to contract, found once for each expression and shapes.

    For each step the operands' places (they are popped, the result is appended), its einsum, and that einsum in the
    letters that torch knows.
    """
    return _find_plan(inputs, output, shapes)


@functools.lru_cache(maxsize=4096)
def _find_plan(inputs: str, output: str, shapes: Shapes) -> Plan:
    expression = f"{inputs}->{output}"
    strategy = "optimal" if len(shapes) <= 6 else "auto-hq"
    _, info = opt_einsum.contract_path(expression, *shapes, shapes=True, optimize=strategy)
    return tuple((tuple(step[0]), step[2], _plain(step[2])) for step in info.contraction_list)


def _plain(step: str) -> str:
    """One step in the letters that torch knows."""
    letters = dict.fromkeys(c for c in step if c not in ",->")
    names = dict(zip(letters, string.ascii_letters, strict=False))
    return "".join(names.get(c, c) for c in step)


@functools.lru_cache(maxsize=4096)
def operations(expression: str, shapes: Shapes) -> int:
    """Floating-point operations on the chosen order; a multiplication and an addition are two."""
    inputs, output = expression.split("->")
    sizes: dict[str, int] = {}
    for letters, shape in zip(inputs.split(","), shapes, strict=True):
        sizes.update(zip(letters, shape, strict=True))
    total = 0
    for _, step, _ in plan(inputs, "".join(groups(output)), shapes):
        taken, kept = step.split("->")
        letters = set(taken) - {","}
        each = taken.count(",") + bool(letters - set(kept))  # products of the operands, and a sum if letters go
        total += each * math.prod(sizes[letter] for letter in letters)
    return total


def _is_known(n: int | torch.SymInt) -> bool:
    """Whether the planner may see this size. A tracer calls its symbols int, so it is asked in its own words."""
    if isinstance(n, int) and not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return has_static_value(n)


def _planned(inputs: str, operands: tuple[Tensor, ...]) -> Shapes:
    """The operands' shapes for the planner: a letter's size where any operand knows it, else ``MANY_ROWS``."""
    known: dict[str, int] = {}
    for letters, x in zip(inputs.split(","), operands, strict=True):
        for letter, n in zip(letters, x.shape, strict=True):
            if _is_known(n):
                known[letter] = int(n)
    return tuple([tuple([known.get(letter, MANY_ROWS) for letter in letters]) for letters in inputs.split(",")])


def contract(expression: str, *operands: Tensor) -> Tensor:
    """Evaluate ``inputs->output``; each pair of brackets in the output fuses its letters into one mode.

    Operands may share a dtype only. The order is found once for each expression and shapes; a traced dimension
    counts as 1,024 in that choice.

    >>> contract("ac,bd->(ab)(cd)", torch.ones(2, 3), torch.ones(4, 5)).shape
    torch.Size([8, 15])
    """
    inputs, output = expression.split("->")
    modes = groups(output)
    shapes = _planned(inputs, operands)
    stack = list(operands)
    for places, _, step in plan(inputs, "".join(modes), shapes):
        taken = [stack.pop(place) for place in places]
        stack.append(torch.einsum(step, *taken))
    result = stack[0]
    if any(len(mode) != 1 for mode in modes):
        sizes: dict[str, int] = {}
        for letters, x in zip(inputs.split(","), operands, strict=True):
            sizes.update(zip(letters, x.shape, strict=True))
        result = result.reshape([math.prod([sizes[letter] for letter in mode]) for mode in modes])
    return result
