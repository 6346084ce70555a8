"""Taking parts of tensor networks: entries, sub-tensors, and modes multiplied away."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad.einsum import contract, symbol
from polyad.formats.networks.arithmetic import Operands, SupportsNetwork, split_einsum

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

Gone = dict[str, int]
"""Letters of the modes that a network lost, and the numbers of the operands that had them."""


def _places(a: SupportsNetwork) -> list[tuple[str, list[int]]]:
    """The letters of every mode, and the numbers of the operands that have the first of them."""
    terms, modes = split_einsum(a.network()[0])
    holders: dict[str, list[int]] = {}
    for i, term in enumerate(terms):
        for letter in dict.fromkeys(term):
            holders.setdefault(letter, []).append(i)
    return [(mode, holders[mode[0]]) for mode in modes]


def _place(a: SupportsNetwork, mode: int, places: list[tuple[str, list[int]]] | None = None) -> tuple[str, int]:
    """The letter of a mode, counted after the batch or from behind, and the number of the one operand that has it."""
    places = _places(a) if places is None else places
    if not -len(places) <= mode < len(places):
        raise IndexError(f"mode={mode} is out of range for {a!r}; choose from {-len(places)} to {len(places) - 1}")
    letter, holders = places[mode]
    if len(letter) != 1 or len(holders) != 1:
        raise ValueError(
            f"mode {mode} of {a!r} cannot be indexed or multiplied alone, since it joins several axes or belongs to "
            "several tensors; use rows, linear or to_dense"
        )
    return letter, holders[0]


def multiply_mode(a: SupportsNetwork, x: Tensor, mode: int) -> tuple[Operands, Gone]:
    """Multiply a mode by a matrix (m, n), or by a vector (n,), which takes it away. Returns the new operands."""
    terms, _ = split_einsum(a.network()[0])
    operands = list(a.network()[1])
    letter, holder = _place(a, mode)
    axis = operands[holder].ndim - len(terms[holder]) + terms[holder].index(letter)
    if x.ndim not in (1, 2) or x.shape[-1] != operands[holder].shape[axis]:
        raise ValueError(
            f"x of shape {tuple(x.shape)} cannot multiply mode {mode} of {a!r}; a matrix (m, n) or a vector (n,) "
            f"with n={operands[holder].shape[axis]} is needed"
        )
    moved = operands[holder].movedim(axis, -1)
    operands[holder] = (moved @ x.mT).movedim(-1, axis) if x.ndim == 2 else moved @ x
    return tuple(operands), {letter: holder} if x.ndim == 1 else {}


def take_index(a: SupportsNetwork, index: Any) -> tuple[Operands, Gone]:
    """Take these integers and slices of the modes, of which integers leave none. Returns the new operands."""
    terms, modes = split_einsum(a.network()[0])
    operands = list(a.network()[1])
    gone: Gone = {}
    places = _places(a)
    for mode, one in enumerate(_spread(index, len(modes), a)):
        if isinstance(one, slice) and one == slice(None):
            continue
        letter, holder = _place(a, mode, places)
        left = [c for c in terms[holder] if c not in gone]  # an operand may have lost another mode before
        axis = operands[holder].ndim - len(left) + left.index(letter)
        operands[holder] = operands[holder][(slice(None),) * axis + (one,)]
        if not isinstance(one, slice):
            gone[letter] = holder
    if len(gone) == len(modes):
        raise IndexError(f"the index {index} leaves a single number; use entries for that")
    return tuple(operands), gone


def _spread(index: Any, n: int, a: SupportsNetwork) -> list[int | slice]:
    asked = list(index) if isinstance(index, tuple) else [index]
    if asked.count(Ellipsis) == 1:
        at = asked.index(Ellipsis)
        asked[at : at + 1] = [slice(None)] * (n - len(asked) + 1)
    bad = [one for one in asked if not isinstance(one, int | slice) or isinstance(one, bool)]
    if bad or len(asked) > n:
        raise IndexError(
            f"the index {index} does not fit the {n} modes of {a!r}; give integers, slices and at most one ..., or "
            "use entries for lists of positions"
        )
    return asked + [slice(None)] * (n - len(asked))


def absorb_operands(a: SupportsNetwork, operands: Operands, gone: Gone) -> Operands:
    """Contract each operand that has no mode left into a neighbour over their bonds. Returns the new operands."""
    if not gone:
        return operands
    terms, modes = split_einsum(a.network()[0])
    outer = set("".join(modes)) - gone.keys()
    live = dict(enumerate(operands))
    letters = {i: "".join(c for c in term if c not in gone) for i, term in enumerate(terms)}
    for i in dict.fromkeys(gone.values()):
        near = [j for j in live if j != i and set(letters[j]) & set(letters[i])]
        if not near or outer & set(letters[i]):
            continue
        shared = set(letters[i])  # a neighbour over all of its bonds grows by none
        j = min(near, key=lambda j: (bool(shared - set(letters[j])), not outer & set(letters[j]), abs(i - j), j))
        rest = outer.union(*(letters[k] for k in live if k not in (i, j)))
        bonds = "".join(c for c in letters[j] + "".join(c for c in letters[i] if c not in letters[j]) if c in rest)
        bonds = _bond_order(bonds, letters[j], i < j)
        lead = "".join(symbol(-2 - k) for k in range(a.batch))
        live[j] = contract(f"{lead}{letters[i]},{lead}{letters[j]}->{lead}{bonds}", live[i], live[j])
        letters[j] = bonds
        del live[i], letters[i]
    return tuple(live[i] for i in sorted(live))


def _bond_order(kept: str, into: str, before: bool) -> str:
    """The letters kept, with a bond of the absorbed operand where the bond that it replaces stood."""
    new = [c for c in kept if c not in into]
    old = [c for c in into if c in kept]
    lost = [place for place, c in enumerate(into) if c not in kept]
    place = lost[0] if lost else (0 if before else len(old))
    return "".join(old[:place] + new + old[place:])


def check_index(index: Tensor, shape: tuple[int, ...], batch: int) -> Tensor:
    """Refuse an index of entries that is not (*any, modes) of integers. Returns it."""
    sizes = shape[batch:]
    if not isinstance(index, Tensor):
        raise TypeError(f"index={index!r} is no tensor; give torch.tensor([[…]]) of {len(sizes)} integers an entry")
    if index.dtype not in _INTEGERS or index.ndim == 0 or index.shape[-1] != len(sizes):
        raise ValueError(
            f"index of shape {tuple(index.shape)} and {index.dtype} must hold {len(sizes)} integers an entry, as "
            f"(*any, {len(sizes)})"
        )
    return index


def entries(a: SupportsNetwork, index: Tensor) -> Tensor:
    """Entries at ``index`` of shape (*any, modes): each operand is gathered along its modes, then contracted."""
    expression, operands = a.network()
    terms, modes = split_einsum(expression)
    check_index(index, a.shape, count := a.batch)
    every = _places(a)
    places = {_place(a, mode, every)[0]: index[..., mode].reshape(-1) for mode in range(len(modes))}
    lead, row = "".join(symbol(-2 - k) for k in range(count)), symbol(-1)
    taken, letters = [], []
    for term, x in zip(terms, operands, strict=True):
        axes = [c for c in term if c in places]
        bonds = "".join(c for c in term if c not in places)
        order = [term.index(c) + count for c in axes] + [term.index(c) + count for c in bonds]
        x = x.permute(*range(count), *order)
        x = x[(slice(None),) * count + tuple(places[c].long() for c in axes)] if axes else x
        taken.append(x)
        letters.append(lead + (row if axes else "") + bonds)
    values = contract(f"{','.join(letters)}->{lead}{row}", *taken)
    return values.reshape((*values.shape[:count], *index.shape[:-1]))
