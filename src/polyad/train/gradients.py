"""Refusal of gradients that are not finite, before they reach the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class DivergedError(ValueError):
    """A loss, or its gradient, is not finite any more."""


@torch.no_grad()
def refuse_gradients(parameters: Mapping[str, Tensor], step: int, loss: float) -> None:
    """Refuse gradients with NaN or infinite numbers, take all of them away, and name the first of them.

    Costs one pass over the gradients.
    """
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    norm: Any = torch.nn.utils.get_total_norm(list(gradients.values())) if gradients else torch.zeros(())
    if bool(torch.isfinite(_whole(norm))):
        return
    bad = [name for name, gradient in gradients.items() if not bool(torch.isfinite(_whole(gradient)).all())]
    if not bad:  # the squares alone are too large
        return
    for parameter in parameters.values():
        parameter.grad = None
    more = f" and of {len(bad) - 1} others" if len(bad) > 1 else ""
    raise DivergedError(
        f"the gradient of {bad[0]}{more} holds NaN or infinite numbers in step {step}, though the loss is "
        f"{loss:.6g}; the step was not taken. Look for what has no finite slope there (a root or logarithm of 0, a "
        "norm of zeros, a quotient 0/0, numbers too large for half precision), or choose a lower learning rate"
    )


def _whole(x: Any) -> Tensor:
    """All of a tensor of which processes hold shards."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x
