"""An update that trains a weight's principal Kronecker products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.decompose.matrices.kronecker_svd import first_shape, kronecker_svd
from polyad.decompose.ranks.choose_rank import by_elbow, by_energy
from polyad.formats import Kronecker


@method(
    "adapter",
    makes=None,
    name="soka",
    example={"rank": 2},
    needs={"weight"},
    papers=(
        Paper(
            "Chong, Qu",
            2025,
            "Singular Value Decomposition on Kronecker Adaptation for Large Language Model",
            "arXiv:2506.15251",
            handle="soka",
        ),
    ),
)
class SoKA(Adapter):
    """``W' = W - Σ A₀ₖ ⊗ B₀ₖ + Σ Aₖ ⊗ Bₖ`` where the products A₀ₖ ⊗ B₀ₖ are the principal ones of W.

    They come from the Kronecker-product SVD of W, both factors carrying the root of the singular value, and A, B
    start there. ``shape_of_first`` is (a, c), by default the divisors nearest to the square roots of W's sides; rank
    (a c + out · in / (a c)) numbers are trained. With ``energy``, a layer keeps at most ``rank`` terms: the smaller
    of what the share of energy and what the elbow of the spectrum ask for. Experts stacked in one parameter need one
    number of terms, so no ``energy``. The weight stays as it is, as in ``PiSSA``, where the paper stores the residual
    in its place, and the start is worked out again on loading. A row takes at most 4 rank (a in + out · in / c)
    operations.

    >>> adapter = SoKA((6, 8), rank=2)
    >>> sum(p.numel() for p in adapter.parameters())
    32
    """

    A0: Tensor
    B0: Tensor

    learning_rate = 0.001

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        energy: float | None = None,
        shape_of_first: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        a, c = self.first = first_shape(torch.empty(out, n, device="meta"), shape_of_first)
        b, d = out // a, n // c
        self.rank = _check.rank(rank, min(a * c, b * d), f"the most terms that ({out}, {n}) can have")
        if energy is not None and not 0 < energy <= 1:
            raise ValueError(f"energy={energy} must be a share of the squared singular values, above 0 and up to 1")
        self.energy = energy
        self._hold(Kronecker(torch.zeros(rank, a, c), torch.zeros(rank, b, d)))

    def _hold(self, start: Kronecker) -> None:
        """Train these terms, and keep them as the start."""
        self.register_buffer("A0", start.first, persistent=False)
        self.register_buffer("B0", start.second, persistent=False)
        self.A, self.B = nn.Parameter(start.first.clone()), nn.Parameter(start.second.clone())

    def derive(self, base: Frozen) -> None:
        a, c = self.first
        weight = base.weight.flatten(1).to(torch.float64)
        most = min(a * c, weight.numel() // (a * c)) if self.energy is not None else self.rank
        terms = kronecker_svd(weight, most, shape_of_first=self.first)
        count = self.rank
        if self.energy is not None:
            spectrum = terms.first.flatten(-2).norm(dim=-1).pow(4)  # a factor's norm is its root
            count = max(1, min(self.rank, by_energy(spectrum, self.energy), by_elbow(spectrum)))
        first, second = (t[:count].to(dtype=self.A.dtype, device=self.A.device) for t in (terms.first, terms.second))
        self._hold(Kronecker(first, second))

    def update(self, base: Frozen) -> Kronecker:  # noqa: ARG002
        return Kronecker(torch.cat((self.A, -self.A0)), torch.cat((self.B, self.B0)))
