"""Missing entries filled with the model's values, between the sweeps that fit the model."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.formats import Tucker
from polyad.linalg.higher_order import squared_norms

_GROW, _MOST = 1.2, 4.0


def share_inverse(mask: Tensor, batch: int) -> Tensor:
    """The inverse share of entries seen, of each tensor, to broadcast: it turns a sum over some into one over all."""
    modes = tuple(range(batch, mask.ndim))
    return 1 / mask.double().mean(modes, keepdim=True).clamp(min=1 / mask[(0,) * batch].numel()).float()


class Filling:
    """x (*batch, …) whose entries outside the mask are replaced; its error is that of the entries seen.

    Plain replacement never raises the error of orthogonal iterations, but it creeps where much is missing. So the
    entries are moved on along their last change, by a step that grows while the error falls; where it rises, the
    tensor goes back to the best model and the step to zero.
    """

    def __init__(self, x: Tensor, mask: Tensor, batch: int, start: Tucker) -> None:
        self.x, self.mask, self.batch = x, mask, batch
        self.total = squared_norms(x, batch)
        self.step = torch.zeros_like(self.total)
        self.reset = False
        self.model = start.to_dense()
        self.best = (start.core, list(start.factors))
        self.error = self._error(self.model)
        self.tensor = x.where(mask, self.model)

    def renew(self, core: Tensor, factors: list[Tensor]) -> Tensor:
        """Take the model that a sweep has found; the least relative squared errors (*batch) over what was seen."""
        model = Tucker(core, tuple(factors)).to_dense()
        error = self._error(model)
        better = error <= self.error
        self.reset = bool((~better & (self.step > 0)).any())
        fill = model + self._wide(self.step) * (model - self.model)
        self.step = torch.where(better, (_GROW * self.step).clamp(min=0.5, max=_MOST), 0)
        keep = self._wide(better)
        self.best = (
            torch.where(keep, core, self.best[0]),
            [torch.where(better[..., None, None], new, old) for new, old in zip(factors, self.best[1], strict=True)],
        )
        fill = torch.where(keep, fill, self.model)
        self.model = torch.where(keep, model, self.model)
        self.error = torch.minimum(error, self.error)
        self.tensor = self.x.where(self.mask, fill)
        return self.error

    def _error(self, model: Tensor) -> Tensor:
        rest = (model - self.x) * self.mask
        return squared_norms(rest, self.batch) / torch.where(self.total > 0, self.total, 1)

    def _wide(self, value: Tensor) -> Tensor:
        return value[(..., *[None] * (self.x.ndim - self.batch))].to(
            self.x.dtype if value.is_floating_point() else value.dtype
        )
