"""Sweeps of a cross approximation over the bonds of a tensor train."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad.algorithms.maxvol import maxvol
from polyad.decompose.trains._evaluations import Evaluations
from polyad.formats import TensorTrain

TRIM = 0.01
"""Share of tol/√bonds that the rank of a core's unfolding may leave out."""

EXTRA = 2
"""Rows beyond the rank that a sweep adds to a bond whose rank may still grow."""


class Cross:
    """Nested index sets on both sides of every bond, and the sweep that renews one side of all of them.

    ``left[k]`` (r, k) are indices of the first k modes and ``right[k]`` (r, d - k) those of the modes from k on.
    """

    def __init__(self, ask: Evaluations, start: Tensor, rank: int | None, tol: float) -> None:
        self.ask, self.shape = ask, ask.shape
        d = len(self.shape)
        self.left = [start[:, :k].unique(dim=0) if k else start[:1, :0] for k in range(d + 1)]
        self.right = [start[:, k:].unique(dim=0) if k < d else start[:1, d:] for k in range(d + 1)]
        self.most = rank
        self.trim = TRIM * tol / math.sqrt(max(1, d - 1))
        self.forward = True

    def add(self, index: Tensor) -> None:
        """Add entries (N, d) to the sets that the next sweep starts from: every train then interpolates them."""
        for k in range(1, len(self.shape)):
            if self.forward:
                self.right[k] = torch.cat((self.right[k], index[:, k:])).unique(dim=0)
            else:
                self.left[k] = torch.cat((self.left[k], index[:, :k])).unique(dim=0)

    def sweep(self) -> TensorTrain:
        """One sweep, in the direction opposite to the last; the train in float64."""
        d = len(self.shape)
        cores = [torch.empty(0)] * d
        for k in range(d) if self.forward else reversed(range(d)):
            values = self._values(k)
            if k == (d - 1 if self.forward else 0):
                cores[k] = values
            elif self.forward:
                cores[k] = self._rightwards(k, values)
            else:
                cores[k] = self._leftwards(k, values)
        self.forward = not self.forward
        return TensorTrain.from_three_way(cores, cores[0])

    def _values(self, k: int) -> Tensor:
        """The function at left indices × mode k × right indices, of shape (r, n, s)."""
        left, right, n = self.left[k], self.right[k + 1], self.shape[k]
        r, s = len(left), len(right)
        index = torch.cat(
            (
                left[:, None, None].expand(r, n, s, -1),
                torch.arange(n).reshape(1, n, 1, 1).expand(r, n, s, 1),
                right[None, None].expand(r, n, s, -1),
            ),
            -1,
        )
        return self.ask(index.reshape(r * n * s, -1)).reshape(r, n, s)

    def _rightwards(self, k: int, values: Tensor) -> Tensor:
        rows, c = self._interpolation(values.flatten(0, 1))
        n = self.shape[k]
        self.left[k + 1] = torch.cat((self.left[k][rows // n], (rows % n)[:, None]), 1)
        return c.reshape(*values.shape[:2], -1)

    def _leftwards(self, k: int, values: Tensor) -> Tensor:
        columns, c = self._interpolation(values.flatten(1).mT)
        s = values.shape[2]
        self.right[k] = torch.cat(((columns // s)[:, None], self.right[k + 1][columns % s]), 1)
        return c.mT.reshape(-1, *values.shape[1:])

    def _interpolation(self, m: Tensor) -> tuple[Tensor, Tensor]:
        """Rows that interpolate m (N, r) and their coefficients; more rows than m's rank where all columns count."""
        u, s, _ = torch.linalg.svd(m, full_matrices=False)
        count = max(1, int((s > self.trim * s[0]).sum()))
        most = min(self.most or m.shape[0], m.shape[0])
        count = min(count, most)
        grows = count == m.shape[1] and float(s[0]) > 0
        extra = min(EXTRA, most - count) if grows else 0
        return maxvol(u[:, :count], extra)
