"""Products of tensors whose entries are tubes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Generator, Tensor

from polyad.formats._format import Format
from polyad.formats._tubes import from_frequencies, to_frequencies, truncate, weights
from polyad.formats.dense import apply


@dataclass(frozen=True, eq=False, repr=False)
class Tubal(Format):
    """``X = left * right``, the t-product: matrices whose entries are tubes, multiplied by circular convolution.

    ``left`` is (*batch, n, r, l), ``right`` (*batch, r, m, l) and X (*batch, n, m, l), where l is the length of the
    tubes. ``modes`` is 1; it is 0 without a tube, for a plain low-rank matrix. In the discrete Fourier transform of
    the tubes X is one product of matrices a frequency, all of rank at most r: the tubal rank. Stores r (n + m) l
    numbers. ``to_dense`` costs three transforms, and n r m complex products for each of l // 2 + 1 frequencies.

    Shifting X along a tube shifts one factor; sums, multiples, products with a matrix on the first two modes, slices
    of these, inner products and single entries keep or use the structure. Products entry by entry do not.

    >>> x = Tubal(torch.ones(3, 2, 5), torch.ones(2, 4, 5))
    >>> x.shape, x.rank, float(x.to_dense()[0, 0, 0]), (x + x).rank, x[1:].shape
    ((3, 4, 5), 2, 10.0, 4, (2, 4, 5))
    """

    left: Tensor
    right: Tensor
    modes: int = 1

    def __post_init__(self) -> None:
        left, right, n = self.left.shape, self.right.shape, self.modes
        axis = len(left) - n
        fits = min(len(left), len(right)) >= n + 2 and len(left) == len(right)
        if n not in (0, 1):
            raise ValueError(f"modes={n} is not the number of tube modes that a Tubal can have: 0 or 1")
        if not fits or (left[: axis - 2], left[axis - 1], left[axis:]) != (
            right[: axis - 2], right[axis - 2], right[axis:],
        ):  # fmt: skip
            raise ValueError(
                f"left of shape {tuple(left)} and right of shape {tuple(right)} do not agree: (*batch, n, r, *tube) "
                f"and (*batch, r, m, *tube) are needed, with tubes of {n} dimensions"
            )

    @property
    def rank(self) -> int:
        """The tubal rank: the columns of left."""
        return self.left.shape[self._axis + 1]

    @property
    def batch(self) -> int:
        """The number of leading batch dimensions."""
        return self._axis

    @property
    def tube(self) -> tuple[int, ...]:
        return tuple(self.left.shape[self._axis + 2 :])

    @property
    def _axis(self) -> int:
        return self.left.ndim - self.modes - 2

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.left.shape[: self._axis + 1], *self.right.shape[self._axis + 1 :])

    def to_dense(self) -> Tensor:
        left, right = self.frequencies()
        return from_frequencies(left @ right, self.tube).to(self.dtype)

    def frequencies(self) -> tuple[Tensor, Tensor]:
        """Both factors at the l // 2 + 1 frequencies: (*batch, frequencies, n, r) and (*batch, frequencies, r, m)."""
        return to_frequencies(self.left, self.modes), to_frequencies(self.right, self.modes)

    def linear(self, x: Tensor) -> Tensor:
        self._matrix()
        return apply(self.left, apply(self.right, x))

    def transpose(self) -> Tubal:
        """The format with the first two modes exchanged; the tubes stay as they are."""
        axis = self._axis
        return Tubal(self.right.transpose(axis, axis + 1), self.left.transpose(axis, axis + 1), self.modes)

    def rows(self, index: Tensor) -> Tensor:
        self._matrix()
        return self.left[index] @ self.right

    def flops(self, batch: int) -> int:
        self._matrix()
        return 2 * batch * (self.left.numel() + self.right.numel())

    def _matrix(self) -> None:
        if self.modes:
            raise ValueError(
                f"a Tubal of shape {self.shape} has tubes; only one of modes=0, a matrix, can be applied"
            )

    # Arithmetic --------------------------------------------------------------------------------------------------

    def __add__(self, other: Format) -> Format:
        """The sum; of two of one shape a ``Tubal`` whose rank is the sum of theirs."""
        if not isinstance(other, Tubal) or (other.shape, other.modes) != (self.shape, self.modes):
            return super().__add__(other)
        axis = self._axis
        left, right = torch.cat((self.left, other.left), axis + 1), torch.cat((self.right, other.right), axis)
        return Tubal(left, right, self.modes)

    def __mul__(self, other: Any) -> Tubal:
        """Times a number."""
        if isinstance(other, Format):
            return NotImplemented
        return Tubal(self.left * other, self.right, self.modes)

    def inner(self, other: Tubal) -> Tensor:
        """``Σ X Y`` over all modes, of shape (*batch), in O(r s (n + m)) operations a frequency."""
        if not isinstance(other, Tubal) or (other.shape, other.modes) != (self.shape, self.modes):
            raise ValueError(f"{self!r} has no inner product with {other!r}: two Tubals of one shape are needed")
        (p, q), (s, t) = self.frequencies(), other.frequencies()
        each = ((p.mH @ s) * (t @ q.mH).mT).sum((-2, -1)).real  # tr((p q)ᴴ s t), one number a frequency
        share = weights(self.tube, each.device).to(each.dtype)
        return (each * share).sum(-1).to(self.dtype)

    def norm(self) -> Tensor:
        """The Frobenius norm, of shape (*batch); exact to half of the dtype's digits, as a root of ``inner``."""
        return self.inner(self).clamp(min=0).sqrt()

    def __getitem__(self, index: Any) -> Tubal:
        """The sub-tensor of slices of the first two modes; tubes stay whole, and batch dimensions are not indexed."""
        asked = index if isinstance(index, tuple) else (index,)
        if len(asked) > 2 or not all(isinstance(one, slice) for one in asked):
            raise IndexError(f"{index} does not index {self!r}: it takes a slice for each of the first two modes")
        first, second = (*asked, slice(None), slice(None))[:2]
        lead = (slice(None),) * self._axis
        return Tubal(self.left[(*lead, first)], self.right[(*lead, slice(None), second)], self.modes)

    def multiply(self, x: Tensor, mode: int) -> Tubal:
        """The product with a matrix (k, n) on mode 0 or (k, m) on mode 1."""
        if mode not in (0, 1) or x.ndim != 2 or x.shape[1] != self.shape[self._axis + mode]:
            raise ValueError(
                f"x of shape {tuple(x.shape)} cannot multiply mode {mode} of {self!r}; modes are 0 and 1"
            )
        if mode == 1:
            return self.transpose().multiply(x, 0).transpose()
        left = (self.left.movedim(self._axis, -1) @ x.mT).movedim(-1, self._axis)
        return Tubal(left, self.right, self.modes)

    def entries(self, index: Tensor) -> Tensor:
        """Single entries: ``index`` of shape (*any, 2 + modes) gives (*batch, *any); r l products each."""
        if index.is_floating_point() or index.ndim == 0 or index.shape[-1] != 2 + self.modes:
            raise ValueError(
                f"index of shape {tuple(index.shape)} and {index.dtype} must hold {2 + self.modes} integers an entry"
            )
        flat = index.long().reshape(-1, 2 + self.modes)
        left = self.left.movedim(self._axis, 0)[flat[:, 0]]
        right = self.right.movedim(self._axis + 1, 0)[flat[:, 1]]  # (entries, *batch, r, *tube)
        if self.modes:  # position p of left meets position k - p of right
            length = self.tube[0]
            turned = (flat[:, 2, None] - torch.arange(length, device=index.device)) % length
            shape = (len(flat), *[1] * (self._axis + 1), length)
            right = right.gather(-1, turned.reshape(shape).expand(right.shape))
        found = (left * right).flatten(1 + self._axis).sum(-1)
        return found.movedim(0, -1).reshape(*self.shape[: self._axis], *index.shape[:-1])

    def round(self, rank: int | None = None, *, tol: float | None = None) -> Tubal:
        """The closest of tubal rank ``rank``, or of the least within the relative error ``tol``.

        O(r² (n + m)) operations a frequency.
        """
        left, right = self.frequencies()
        (p, s), (q, t) = torch.linalg.qr(left), torch.linalg.qr(right.mH)
        u, core = truncate(s @ t.mH, self.tube, rank, tol)
        left, right = (from_frequencies(part, self.tube).to(self.dtype) for part in (p @ u, core @ q.mH))
        return Tubal(left.contiguous(), right.contiguous(), self.modes)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal factors of rank about half the smaller of the first two modes; a third is that of the tubes."""
        if len(shape) not in (2, 3):
            raise ValueError(f"shape={shape} has not the two or three modes of a Tubal")
        n, m, *tube = shape
        rank = max(1, min(n, m) // 2)
        left = torch.randn(n, rank, *tube, generator=generator, dtype=dtype)
        return cls(left, torch.randn(rank, m, *tube, generator=generator, dtype=dtype), len(tube))
