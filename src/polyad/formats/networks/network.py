"""Tensor networks of any graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.einsum import contract, groups, symbol
from polyad.formats.networks.arithmetic import split_einsum
from polyad.formats.networks.multilinear import Multilinear


@dataclass(frozen=True, eq=False, repr=False)
class Network(Multilinear):
    """Any tensor network: ``expression`` is its einsum, ``operands`` are its tensors, one a term.

    Letters of the output are modes, all others bonds; a letter may be shared by more than two operands, none stands
    twice in one. Every operand has the shape (*batch, one dimension a letter), with one batch, which the einsum
    leaves out. Modes of the output may fuse, ``ac,bd->(ab)(cd)``. Sums need a connected network.

    Two networks are added, or multiplied entry by entry, only if their expressions are equal.

    >>> ring = Network("axy,byz,czx->abc", (torch.ones(3, 2, 2), torch.ones(4, 2, 2), torch.ones(5, 2, 2)))
    >>> ring.shape, ring.rank, (ring + ring).rank, ring[0].expression
    ((3, 4, 5), {'x': 2, 'y': 2, 'z': 2}, {'x': 4, 'y': 4, 'z': 4}, 'xy,byz,czx->bc')
    """

    no_round_because: ClassVar[str] = (
        "a bond of any graph has no sides that could be made orthogonal; round a train, a ring or a tree before it "
        "is converted, or decompose its to_dense()"
    )

    expression: str
    operands: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        terms = _terms(self.expression)
        shapes = [tuple(x.shape) for x in self.operands]
        if len(terms) != len(shapes) or any(len(s) < len(t) for s, t in zip(shapes, terms, strict=True)):
            raise ValueError(
                f"expression={self.expression!r} does not fit operands of shapes {shapes}: one operand for each "
                "term, with one "
                "dimension or more for each letter, are needed"
            )
        sizes: dict[str, set[int]] = {}
        for term, shape in zip(terms, shapes, strict=True):
            for letter, n in zip(term, shape[len(shape) - len(term) :], strict=True):
                sizes.setdefault(letter, set()).add(n)
        torn = {letter: sorted(values) for letter, values in sizes.items() if len(values) > 1}
        lead = {shape[: len(shape) - len(term)] for term, shape in zip(terms, shapes, strict=True)}
        if torn or len(lead) != 1:
            raise ValueError(
                f"operands of shapes {shapes} do not agree in expression={self.expression!r}: letters of two sizes "
                f"{torn}, leading batch dimensions {sorted(lead)}; one size a letter and one batch are needed"
            )

    @property
    def rank(self) -> dict[str, int]:
        """The size of every bond."""
        terms, modes = split_einsum(self.expression)
        outer = set("".join(modes))
        return {
            letter: n
            for term, x in zip(terms, self.operands, strict=True)
            for letter, n in zip(term, x.shape[x.ndim - len(term) :], strict=True)
            if letter not in outer
        }

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        return self.expression, self.operands

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        return replace(self, operands=tuple(operands))

    def without_modes(self, operands: tuple[Tensor, ...], gone: dict[str, int]) -> Self:
        """The network without these letters; operands that keep no letter at all are multiplied into the first."""
        terms, modes = split_einsum(self.expression)
        left = ["".join(c for c in term if c not in gone) for term in terms]
        output = _output([mode for mode in modes if mode not in gone])
        places = [i for i, term in enumerate(left) if term]
        tensors = [operands[i] for i in places]
        for number in [x for term, x in zip(left, operands, strict=True) if not term]:
            tensors[0] = tensors[0] * number.reshape(*number.shape, *[1] * len(left[places[0]]))
        return type(self)(",".join(left[i] for i in places) + "->" + output, tuple(tensors))

    def transpose(self) -> Network:
        inputs, output = self.expression.split("->")
        modes = groups(output)
        if len(modes) < 2:
            raise ValueError(f"a network of shape {self.shape} is no matrix and cannot be transposed")
        return Network(f"{inputs}->{_output([*modes[:-2], modes[-1], modes[-2]])}", self.operands)

    def rows(self, index: Tensor) -> Tensor:
        terms, (out, columns) = split_einsum(self.expression)
        places: dict[str, Tensor] = {}
        flat = index.reshape(-1).long()
        sizes = {
            c: n for term, x in zip(terms, self.operands, strict=True) for c, n in zip(term, x.shape, strict=True)
        }
        for letter in reversed(out[1:]):
            places[letter], flat = flat % sizes[letter], flat.div(sizes[letter], rounding_mode="floor")
        places[out[0]] = flat
        row = symbol(-1)
        taken, letters = [], []
        for term, x in zip(terms, self.operands, strict=True):
            axes = [c for c in term if c in places]
            rest = [c for c in term if c not in places]
            x = x.permute([term.index(c) for c in (*axes, *rest)])
            taken.append(x[tuple([places[c] for c in axes])] if axes else x)
            letters.append((row if axes else "") + "".join(rest))
        product = contract(f"{','.join(letters)}->{row}({columns})", *taken)
        return product.reshape(*index.shape, product.shape[-1])

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """A ring of at least four normal tensors with a chord between the first and the third; every bond is 2."""
        n = max(4, len(shape))
        bonds = [(i, (i + 1) % n) for i in range(n)] + [(0, 2)]
        modes = [symbol(i) for i in range(len(shape))]
        terms = [
            "".join([*modes[i : i + 1], *[symbol(len(shape) + b) for b, ends in enumerate(bonds) if i in ends]])
            for i in range(n)
        ]
        sizes = dict(zip(modes, shape, strict=True))
        operands = [
            torch.randn([sizes.get(c, 2) for c in term], generator=generator, dtype=dtype) / 2**0.5 for term in terms
        ]
        return cls(f"{','.join(terms)}->{''.join(modes)}", tuple(operands))


def _output(modes: Sequence[str]) -> str:
    return "".join(mode if len(mode) == 1 else f"({mode})" for mode in modes)


def _terms(expression: str) -> list[str]:
    """The terms of an einsum; one that is not well formed is refused."""
    if expression.count("->") != 1 or " " in expression or "." in expression:
        raise ValueError(f"expression={expression!r} is no einsum; write it out without spaces, such as 'ax,bx->ab'")
    terms, modes = split_einsum(expression)
    output = "".join(modes)
    twice = [term for term in (*terms, output) if len(set(term)) < len(term)]
    strange = sorted(set(output) - set("".join(terms)))
    if twice or strange or not output:
        raise ValueError(
            f"expression={expression!r} is no tensor network: letters twice in {twice}, letters of no "
            f"operand {strange} in the output; the output must have one letter or more, each of an operand"
        )
    return terms
