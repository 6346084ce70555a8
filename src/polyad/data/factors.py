"""Factors of a decomposition as named arrays in a NumPy file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from polyad._partial import whole_file
from polyad.formats import CP, Format, Tucker

RESERVED = ("core", "weights")


def check_modes(modes: Sequence[str], shape: Sequence[int]) -> tuple[str, ...]:
    """Refuse names of modes that are not one for each mode of a shape, all different. Returns them."""
    names = tuple(modes)
    if len(names) != len(shape) or not all(names):
        raise ValueError(
            f"--modes {','.join(names)} names {len(names)} modes, the tensor has {len(shape)} of sizes "
            f"{' x '.join(map(str, shape))}; give one name for each, joined by commas"
        )
    unfit = next((name for name in names if names.count(name) > 1 or name in RESERVED or "/" in name), None)
    if unfit is not None:
        why = "is what decompositions call a part of their own" if unfit in RESERVED else "cannot be told apart"
        why = "holds a slash, which no name of an array can" if "/" in unfit else why
        raise ValueError(f"--modes: {unfit!r} {why}; choose another name")
    return names


def named_factors(made: Format, modes: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The tensors of a decomposition by name; the factor of a mode is called by the mode.

    Only the factors of a CP and of a Tucker decomposition belong to one mode each; all others keep their own names.

    >>> import torch
    >>> fit = CP((torch.ones(3, 2), torch.ones(4, 2)), torch.ones(2))
    >>> list(named_factors(fit, ["subject", "time"]))
    ['subject', 'time', 'weights']
    """
    tensors = made.tensors()
    if not isinstance(made, CP | Tucker):
        return tensors
    names = modes or [f"mode{i}" for i in range(len(made.factors))]
    by_mode = {f"factors.{i}": name for i, name in enumerate(names)}
    return {by_mode.get(name, name): tensor for name, tensor in tensors.items()}


def write_factors(path: Path, factors: dict[str, Tensor]) -> None:
    """Write named factors as one .npz file, whole or not at all; ``numpy.load`` reads it, nothing is pickled."""
    import numpy

    with whole_file(path) as partial, partial.open("wb") as file:
        numpy.savez(file, allow_pickle=False, **{name: t.detach().cpu().numpy() for name, t in factors.items()})
