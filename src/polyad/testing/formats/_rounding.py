"""Lower ranks, held to the error asked for."""

from __future__ import annotations

import torch

from polyad.formats import Format
from polyad.testing._contract import ROUNDINGS, contract


@contract
def rounding(format: Format) -> None:
    """``round(tol=)`` gives the same kind, no larger, within ``tol``; or a sentence that says what to do instead."""
    dense = format.to_dense().double()
    if format.dtype.itemsize < 4:  # stored digits alone err by more than the tolerances
        return
    for tol in (0.9, 0.3, 0.05, 1e-3, 0.0):
        try:
            rounded = format.round(tol=tol)
        except ValueError as refused:
            said = str(refused)
            assert "cannot be rounded" in said, f"rounding is refused with {said!r}"
            assert len(said.split()) > 12, f"{said!r} does not say what to do instead"
            return
        assert type(rounded) is type(format), f"round gives a {type(rounded).__name__}"
        assert (rounded.shape, rounded.dtype) == (format.shape, format.dtype), (
            f"round gives {rounded!r} of {rounded.dtype}"
        )
        assert rounded.parameters <= format.parameters, f"round({tol=}) gives {rounded!r}, which is larger"
        error = float((rounded.to_dense().double() - dense).norm() / dense.norm().clamp(min=1e-300))
        limit = tol * (1 + 1e-6) + 4 * ROUNDINGS * torch.finfo(format.dtype).eps
        assert error <= limit, f"round({tol=}) is off by {error:.3g}"
