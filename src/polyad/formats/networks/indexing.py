"""Taking parts of tensor networks: entries, sub-tensors, and modes multiplied away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from polyad.einsum import contract, symbol
from polyad.formats.networks.arithmetic import Operands, split

if TYPE_CHECKING:
    from polyad.formats.networks.multilinear import _Multilinear

Gone = dict[str, int]
"""Letters of the modes that a network lost, and the operands that held them."""


def _place(a: _Multilinear, mode: int) -> tuple[str, int]:
    """The letter of a mode, counted after the batch and also from behind, and the one operand that holds it."""
    terms, modes = split(a.network()[0])
    if not -len(modes) <= mode < len(modes):
        raise IndexError(f"mode {mode} is none of the {len(modes)} modes of {a!r}")
    letter = modes[mode]
    holders = [i for i, term in enumerate(terms) if letter in term]
    if len(letter) != 1 or len(holders) != 1:
        raise ValueError(
            f"mode {mode} of {a!r} is made of several axes or held by several tensors and cannot be indexed or "
            "multiplied alone; use rows, linear or to_dense"
        )
    return letter, holders[0]


def applied(a: _Multilinear, x: Tensor, mode: int) -> tuple[Operands, Gone]:
    """Operands after the product of a mode with a matrix (m, n), or with a vector (n,), which takes it away."""
    terms, _ = split(a.network()[0])
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


def selected(a: _Multilinear, index: Any) -> tuple[Operands, Gone]:
    """Operands with these integers and slices taken of their modes; those that integers took are gone."""
    terms, modes = split(a.network()[0])
    operands = list(a.network()[1])
    gone: Gone = {}
    for mode, one in enumerate(_spread(index, len(modes), a)):
        if isinstance(one, slice) and one == slice(None):
            continue
        letter, holder = _place(a, mode)
        left = [c for c in terms[holder] if c not in gone]  # an operand may have lost another mode before
        axis = operands[holder].ndim - len(left) + left.index(letter)
        operands[holder] = operands[holder][(slice(None),) * axis + (one,)]
        if not isinstance(one, slice):
            gone[letter] = holder
    if len(gone) == len(modes):
        raise IndexError(f"{index} takes every mode away and leaves a number; use entries")
    return tuple(operands), gone


def _spread(index: Any, n: int, a: _Multilinear) -> list[int | slice]:
    asked = list(index) if isinstance(index, tuple) else [index]
    if asked.count(Ellipsis) == 1:
        at = asked.index(Ellipsis)
        asked[at : at + 1] = [slice(None)] * (n - len(asked) + 1)
    bad = [one for one in asked if not isinstance(one, int | slice) or isinstance(one, bool)]
    if bad or len(asked) > n:
        raise IndexError(
            f"{index} does not index the {n} modes of {a!r}; integers, slices and one ... are taken, and entries "
            "takes lists of positions"
        )
    return asked + [slice(None)] * (n - len(asked))


def absorbed(a: _Multilinear, operands: Operands, gone: Gone) -> Operands:
    """Operands of a network that lost modes: each that has none left is absorbed by a neighbour over their bonds."""
    if not gone:
        return operands
    terms, modes = split(a.network()[0])
    outer = set("".join(modes)) - gone.keys()
    live = dict(enumerate(operands))
    letters = {i: "".join(c for c in term if c not in gone) for i, term in enumerate(terms)}
    for i in dict.fromkeys(gone.values()):
        near = [j for j in live if j != i and set(letters[j]) & set(letters[i])]
        if not near or outer & set(letters[i]):
            continue
        held = set(letters[i])  # a neighbour over all of its bonds grows by none
        j = min(near, key=lambda j: (bool(held - set(letters[j])), not outer & set(letters[j]), abs(i - j), j))
        rest = outer.union(*(letters[k] for k in live if k not in (i, j)))
        kept = "".join(c for c in letters[j] + "".join(c for c in letters[i] if c not in letters[j]) if c in rest)
        kept = _ordered(kept, letters[j], i < j)
        lead = "".join(symbol(-2 - k) for k in range(a.batch))
        live[j] = contract(f"{lead}{letters[i]},{lead}{letters[j]}->{lead}{kept}", live[i], live[j])
        letters[j] = kept
        del live[i], letters[i]
    return tuple(live[i] for i in sorted(live))


def _ordered(kept: str, into: str, before: bool) -> str:
    """The letters kept, with a bond of the absorbed operand where the bond that it replaces stood."""
    new = [c for c in kept if c not in into]
    old = [c for c in into if c in kept]
    lost = [place for place, c in enumerate(into) if c not in kept]
    place = lost[0] if lost else (0 if before else len(old))
    return "".join(old[:place] + new + old[place:])


def entries(a: _Multilinear, index: Tensor) -> Tensor:
    """Entries at ``index`` of shape (*any, modes): each operand is gathered along its modes, then contracted."""
    terms, modes = split(a.network()[0])
    operands = a.network()[1]
    if index.is_floating_point() or index.ndim == 0 or index.shape[-1] != len(modes):
        raise ValueError(
            f"index of shape {tuple(index.shape)} and {index.dtype} must hold {len(modes)} integers an entry"
        )
    places = {_place(a, mode)[0]: index[..., mode].reshape(-1) for mode in range(len(modes))}
    lead, row = "".join(symbol(-2 - k) for k in range(a.batch)), symbol(-1)
    taken, letters = [], []
    for term, x in zip(terms, operands, strict=True):
        held = [c for c in term if c in places]
        bonds = "".join(c for c in term if c not in places)
        order = [term.index(c) + a.batch for c in held] + [term.index(c) + a.batch for c in bonds]
        x = x.permute(*range(a.batch), *order)
        x = x[(slice(None),) * a.batch + tuple(places[c].long() for c in held)] if held else x
        taken.append(x)
        letters.append(lead + (row if held else "") + bonds)
    found = contract(f"{','.join(letters)}->{lead}{row}", *taken)
    return found.reshape(*found.shape[: a.batch], *index.shape[:-1])
