"""Arithmetic of tensor networks, operand by operand, which every multilinear format shares.

A network is an einsum and its operands. Letters of the output are modes, all others bonds.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from polyad.einsum import contract, groups, symbol

Operands = tuple[Tensor, ...]


class SupportsNetwork(Protocol):
    """A tensor that is stated as an einsum of its operands."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor, batch dimensions included."""
        ...

    @property
    def batch(self) -> int:
        """The number of leading dimensions that the einsum leaves out."""
        ...

    def network(self) -> tuple[str, Operands]:
        """The einsum of one tensor of the batch, and the operands."""
        ...

    def batch_network(self) -> tuple[str, Operands]:
        """``network`` with a letter for each batch dimension."""
        ...


def split_einsum(expression: str) -> tuple[list[str], tuple[str, ...]]:
    """The letters of each operand, and the modes of the output."""
    inputs, output = expression.split("->")
    return inputs.split(","), groups(output)


def are_alike(a: Any, b: Any) -> bool:
    """True for two formats of one kind, shape, einsum and batch, which can be joined operand by operand."""
    if type(a) is not type(b) or a.shape != b.shape:
        return False
    (first, ours), (second, theirs) = a.network(), b.network()
    terms, modes = split_einsum(first)
    outer = set("".join(modes))
    same_sizes = all(
        x.shape[i - len(term)] == y.shape[i - len(term)]
        for term, x, y in zip(terms, ours, theirs, strict=False)
        for i, letter in enumerate(term)
        if letter in outer
    )
    return first == second and a.batch == b.batch and same_sizes


def check_alike(a: SupportsNetwork, b: Any) -> SupportsNetwork:
    """Refuse ``b`` unless it can be joined with ``a`` operand by operand. Returns ``b``."""
    if not are_alike(a, b):
        raise ValueError(
            f"{a!r} and {b!r} cannot be multiplied entry by entry: both must be of one kind, shape and number of "
            "operands; convert one, or multiply their to_dense()"
        )
    return b


def check_same_modes(a: SupportsNetwork, b: Any) -> SupportsNetwork:
    """Refuse ``b`` unless it is a network over the same modes as ``a``. Returns ``b``."""
    if not hasattr(b, "network") or a.shape != b.shape:
        raise ValueError(f"{a!r} has no inner product with {b!r}: two multilinear formats of one shape are needed")
    ours, theirs = (_split_sizes(x) for x in (a, b))
    if ours != theirs or a.batch != b.batch:
        raise ValueError(f"the modes of {a!r} and {b!r} are split into {ours} and {theirs}; they must be the same")
    return b


def _split_sizes(x: SupportsNetwork) -> list[list[int]]:
    """For every mode the sizes of the letters that it is fused of."""
    expression, operands = x.network()
    terms, modes = split_einsum(expression)
    sizes = {
        letter: n
        for term, operand in zip(terms, operands, strict=True)
        for letter, n in zip(term, operand.shape[operand.ndim - len(term) :], strict=True)
    }
    return [[sizes[letter] for letter in mode] for mode in modes]


def is_connected(expression: str) -> bool:
    """True where bonds connect all operands: then a direct sum of the operands is the sum of the tensors."""
    terms, modes = split_einsum(expression)
    outer = set("".join(modes))
    holders: dict[str, list[int]] = {}
    for i, term in enumerate(terms):
        for letter in set(term) - outer:
            holders.setdefault(letter, []).append(i)
    reached, pending = {0}, [0]
    while pending:
        near = {i for letter in terms[pending.pop()] for i in holders.pop(letter, [])} - reached
        reached |= near
        pending += near
    return len(reached) == len(terms) and bool(set("".join(terms)) - outer)


def direct_sum(a: SupportsNetwork, b: SupportsNetwork) -> Operands:
    """Operands whose bonds are those of a and then those of b, zero where the two would mix."""
    expression, ours = a.network()
    _, theirs = b.network()
    terms, modes = split_einsum(expression)
    outer = set("".join(modes))
    return tuple(
        _blocks(x, y, [c not in outer for c in term]) for term, x, y in zip(terms, ours, theirs, strict=True)
    )


def _blocks(x: Tensor, y: Tensor, bond: list[bool]) -> Tensor:
    """x and y along the diagonal of the axes that are bonds; leading batch axes are shared."""
    lead = x.ndim - len(bond)
    axes = [lead + i for i, inside in enumerate(bond) if inside]
    if len(axes) == 1:
        return torch.cat((x, y), dim=axes[0])
    size = [x.shape[i] + y.shape[i] if i in axes else x.shape[i] for i in range(x.ndim)]
    out = x.new_zeros(size).to(torch.promote_types(x.dtype, y.dtype))
    out[tuple([slice(0, x.shape[i]) if i in axes else slice(None) for i in range(x.ndim)])] = x
    out[tuple([slice(x.shape[i], None) if i in axes else slice(None) for i in range(x.ndim)])] = y
    return out


def hadamard_operands(a: SupportsNetwork, b: SupportsNetwork) -> Operands:
    """Operands whose bonds run over all pairs of the bonds of a and b."""
    expression, ours = a.network()
    _, theirs = b.network()
    terms, modes = split_einsum(expression)
    outer = set("".join(modes))
    return tuple(_pairs(x, y, [c not in outer for c in term]) for term, x, y in zip(terms, ours, theirs, strict=True))


def _pairs(x: Tensor, y: Tensor, bond: list[bool]) -> Tensor:
    """The product entry by entry along modes and leading axes, over all pairs along bonds."""
    lead = x.ndim - len(bond)
    first, second, joined = list(x.shape[:lead]), list(y.shape[:lead]), list(x.shape[:lead])
    for inside, r, s in zip(bond, x.shape[lead:], y.shape[lead:], strict=True):
        first += (r, 1) if inside else (r,)
        second += (1, s) if inside else (s,)
        joined.append(r * s if inside else r)
    return (x.reshape(first) * y.reshape(second)).reshape(joined)


def inner(a: SupportsNetwork, b: SupportsNetwork) -> Tensor:
    """The contraction of two networks over all of their modes, a conjugated; b's bonds get letters of their own."""
    (first, ours), (second, theirs) = a.batch_network(), b.batch_network()
    inputs, output = first.split("->")
    modes = groups(output)
    lead, outer = "".join(modes[: a.batch]), "".join(modes)
    names = dict(zip("".join(groups(second.split("->")[1])), outer, strict=True))
    used, fresh = set(inputs) | set(outer), 0
    for letter in second.split("->")[0].replace(",", ""):
        while letter not in names:
            candidate, fresh = symbol(fresh), fresh + 1
            if candidate not in used:  # each is tried once
                names[letter] = candidate
    others = ",".join("".join(names[c] for c in term) for term in second.split("->")[0].split(","))
    return contract(f"{inputs},{others}->{lead}", *[x.conj() for x in ours], *theirs)
