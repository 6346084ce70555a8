"""The top right singular vector of a matrix whose rows pass by once, in random order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.algorithms.stream import Stream
from polyad.linalg.sketch import default_generator


@method(
    "stream",
    name="streaming_eigenvector",
    example={
        "arguments": lambda g: _draw_rows(g),
        "read": lambda stream: stream.vector(),
        "off": lambda vector, rows, dimension: _misalignment(vector, rows),  # noqa: ARG005
        "chunks": 0.01,
        "scale": ("rows",),
    },
    papers=(
        Paper("Kacham, Woodruff", 2024, "Approximating the Top Eigenvector in Random Order Streams",
              "arXiv:2412.11963", "stream-top-eig",
              "heavy rows kept apart, and a block power method over stretches of the light ones"),
    ),
)  # fmt: skip
class StreamingEigenvector(Stream):
    """The leading eigenvector of AᵀA after one pass over the rows of A (n, d), with (heavy + 4 block + 1) d numbers.

    A heavy row, whose squared norm is at least 1/d of all seen so far, is kept whole (at most ``heavy`` of them, the
    largest; default 4 log₂ d): it comes once, and no stretch of the stream looks like another while it counts. The
    light rows are cut into stretches, each twice as long as the one before; in random order each resembles the whole,
    and multiplies the ``block`` current vectors by its second moment and that of the heavy rows so far. The answer is
    the top singular vector of the heavy rows stacked on the Nyström approximation of the light ones' second moment.
    With R = σ₁² / σ₂² the correlation is 1 − O(1/√R). Rows in adversarial order void this.

    Departures: doubling stretches, so that n need not be known; the Nyström step in place of the last power step; the
    threshold follows the norm seen so far. Computed in float64. Cost: 4 block d operations a row.

    Raises ValueError for rows of another width, for NaN and infinities, and where no row has been seen.

    >>> stream = StreamingEigenvector(3)
    >>> for row in torch.tensor([[1.0, 0.0, 0.1], [2.0, 0.1, 0.0], [1.5, 0.0, -0.1]]):
    ...     stream.update(row.unsqueeze(0))
    >>> [round(v, 1) + 0.0 for v in stream.vector().tolist()]
    [1.0, 0.0, 0.0]
    """

    def __init__(
        self, dimension: int, *, heavy: int | None = None, block: int = 4, generator: Generator | None = None
    ) -> None:
        _check.rank(dimension, 1 << 40, "what fits into memory", "dimension")
        heavy = 4 * math.ceil(math.log2(dimension + 1)) if heavy is None else heavy
        _check.at_least("heavy", heavy, 0)
        block = min(_check.rank(block, 1 << 20, "what is sensible", "block"), dimension)
        start = torch.randn(dimension, block, generator=default_generator(generator), dtype=torch.float64)
        self.dimension, self.capacity = dimension, heavy
        self.heavy = start.new_zeros(0, dimension)
        self._z = torch.linalg.qr(start).Q
        self._y = torch.zeros_like(self._z)
        self._light = self._z[:, :0]  # a factor B of the second moment B Bᵀ of one light row, from the last stretch
        self._squares, self._seen, self._count, self._stretch = 0.0, 0, 0, 2 * block

    def update(self, rows: Tensor) -> None:
        """Take in rows of shape (b, d); the results do not depend much on how they are grouped."""
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise ValueError(f"rows of shape {tuple(rows.shape)} must have shape (b, {self.dimension})")
        rows = _check.finite("rows", _check.floating("rows", rows)).detach().double()
        if not rows.numel():
            return
        self._squares += float(rows.square().sum())
        rows = torch.cat((self.heavy, rows))
        norms = rows.square().sum(1)
        order = norms.argsort(descending=True)[: self.capacity]
        heavy = order[norms[order] >= self._squares / self.dimension]
        light = torch.ones(len(rows), dtype=torch.bool)
        light[heavy] = False
        self.heavy, rest = rows[heavy], rows[light]
        while len(rest):
            part, rest = rest[: self._stretch - self._count], rest[self._stretch - self._count :]
            self._y += part.T @ (part @ self._z)
            self._count += len(part)
            self._seen += len(part)
            if self._count == self._stretch:
                self._turn()

    def vector(self) -> Tensor:
        """The estimate (d,), float64, of norm 1; its entry of greatest magnitude is positive."""
        if not self._seen and not len(self.heavy):
            raise ValueError("no row has been seen; call update(rows) first")
        light = self._nystrom() if 2 * self._count >= self._stretch or not self._light.numel() else self._light
        stacked = torch.cat((self.heavy, light.T * math.sqrt(self._seen)))
        largest = stacked.abs().max()
        if largest == 0:
            return torch.eye(self.dimension, dtype=torch.float64)[0]
        top = torch.linalg.svd(stacked / largest, full_matrices=False).Vh[0]
        return top * top[top.abs().argmax()].sign()

    def _turn(self) -> None:
        """End a stretch: one step of the power method, from here on with a stretch of twice the length."""
        self._light = self._nystrom()
        moved = self._y * (self._seen / self._count) + self.heavy.T @ (self.heavy @ self._z)
        largest = float(moved.abs().max())
        if largest > 0:
            self._z = torch.linalg.qr(moved / largest).Q
        self._y = torch.zeros_like(self._z)
        self._count, self._stretch = 0, 2 * self._stretch

    def _nystrom(self) -> Tensor:
        """B (d, block) with B Bᵀ = Y (ZᵀY)⁺ Yᵀ over the stretch so far, divided by its number of rows."""
        values, vectors = torch.linalg.eigh(self._z.T @ self._y)
        present = values > 1e-12 * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
        return self._y @ (vectors[:, present] / values[present].sqrt()) / math.sqrt(max(self._count, 1))


def _draw_rows(generator: Generator) -> dict[str, Any]:
    """Rows in random order with one direction in which they are a hundred times as long as in others."""
    rows = torch.randn(300, 12, generator=generator, dtype=torch.float64)
    top = torch.nn.functional.normalize(torch.randn(12, generator=generator, dtype=torch.float64), dim=0)
    return {"dimension": 12, "rows": rows + 100 * torch.outer(rows[:, 0], top)}


def _misalignment(vector: Tensor, rows: Tensor) -> float:
    """One less the correlation with the top right singular vector, in units of σ₂ / σ₁."""
    _, s, vh = torch.linalg.svd(rows.double() / rows.double().abs().max(), full_matrices=False)
    return float((1 - (vh[0] @ vector).abs() / vector.norm()) / (s[1] / s[0]))
