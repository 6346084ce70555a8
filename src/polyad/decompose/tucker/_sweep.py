"""Products of a tensor with all Tucker factors but one, in the order in which the modes are renewed."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from polyad.linalg import mode_product

Renew = Callable[[int, Tensor], Tensor]


def sweep_modes(x: Tensor, factors: list[Tensor], modes: tuple[int, ...], batch: int, renew: Renew) -> Tensor:
    """Renew the factors of these modes, in place and in order, the others being applied to x already.

    ``renew(mode, y)`` gives the new factor of a mode from x times all other factors as they are then. Each half of
    the modes shares the products with the other half, and so on within it. Returns x times all new factors.
    """
    if len(modes) == 1:
        (mode,) = modes
        factors[mode] = renew(mode, x)
        return mode_product(x, factors[mode].mH, mode, batch)
    half = len(modes) // 2
    first, second = modes[:half], modes[half:]
    sweep_modes(apply_factors(x, factors, second, batch), factors, first, batch, renew)
    return sweep_modes(apply_factors(x, factors, first, batch), factors, second, batch, renew)


def apply_factors(x: Tensor, factors: list[Tensor], modes: tuple[int, ...], batch: int) -> Tensor:
    """Multiply x by the conjugate transposes of these factors, the one that shrinks it most first."""
    for mode in sorted(modes, key=lambda mode: factors[mode].shape[-1] / factors[mode].shape[-2]):
        x = mode_product(x, factors[mode].mH, mode, batch)
    return x
