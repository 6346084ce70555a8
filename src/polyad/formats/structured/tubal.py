"""Products of tensors whose entries are tubes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.formats.format import Format
from polyad.formats.networks.indexing import check_index
from polyad.formats.structured.tubes import from_frequencies, to_frequencies, truncate, weights


@dataclass(frozen=True, eq=False, repr=False)
class Tubal(Format):
    """``X = left * right``, the t-product: matrices whose entries are tubes, multiplied by circular convolution.

    ``left`` is (*batch, n, r, l), ``right`` (*batch, r, m, l) and X (*batch, n, m, l), where l is the length of the
    tubes. In the discrete Fourier transform of the tubes X is one product of matrices a frequency, all of rank at
    most r: the tubal rank. Stores r (n + m) l numbers. ``to_dense`` costs three transforms, and n r m complex
    products for each of l // 2 + 1 frequencies.

    Shifting X along a tube shifts one factor; sums, multiples, products with a matrix on the first two modes, slices
    of these, inner products and single entries keep or use the structure. Products entry by entry do not.

    >>> x = Tubal(torch.ones(3, 2, 5), torch.ones(2, 4, 5))
    >>> x.shape, x.rank, float(x.to_dense()[0, 0, 0]), (x + x).rank, x[1:].shape
    ((3, 4, 5), 2, 10.0, 4, (2, 4, 5))
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        _check.real_tensors("Tubal", self.left, self.right)
        left, right = self.left.shape, self.right.shape
        fits = min(len(left), len(right)) >= 3 and left[:-3] == right[:-3]
        if not fits or (left[-2], left[-1]) != (right[-3], right[-1]):
            raise ValueError(
                f"left of shape {tuple(left)} and right of shape {tuple(right)} do not agree: (*batch, n, r, l) and "
                "(*batch, r, m, l) are needed, with one batch, one r and one length l of the tubes"
            )

    @property
    def rank(self) -> int:
        """The tubal rank: the columns of left."""
        return self.left.shape[-2]

    @property
    def batch(self) -> int:
        """The number of leading batch dimensions."""
        return self.left.ndim - 3

    @property
    def length(self) -> int:
        """The length of the tubes."""
        return self.left.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.left.shape[:-2], *self.right.shape[-2:])

    def to_dense(self) -> Tensor:
        left, right = self.frequencies()
        return from_frequencies(left @ right, self.length).to(self.dtype)

    def frequencies(self) -> tuple[Tensor, Tensor]:
        """Both factors at the l // 2 + 1 frequencies: (*batch, frequencies, n, r) and (*batch, frequencies, r, m)."""
        return to_frequencies(self.left), to_frequencies(self.right)

    def linear(self, x: Tensor) -> Tensor:
        raise self._no_matrix(f"be applied to x of shape {tuple(x.shape)}")

    def transpose(self) -> Tubal:
        """The format with the first two modes exchanged; the tubes stay as they are."""
        return Tubal(self.right.transpose(-3, -2), self.left.transpose(-3, -2))

    def rows(self, index: Tensor) -> Tensor:
        raise self._no_matrix(f"give rows for an index of shape {tuple(index.shape)}")

    def flops(self, batch: int) -> int:
        raise self._no_matrix(f"be applied to {batch} rows")

    def _no_matrix(self, what: str) -> ValueError:
        return ValueError(
            f"a Tubal of shape {self.shape} is no matrix and cannot {what}; choose a matrix format for that"
        )

    # Arithmetic --------------------------------------------------------------------------------------------------

    def __add__(self, other: Format) -> Format:
        """The sum; of two of one shape a ``Tubal`` whose rank is the sum of theirs."""
        if not isinstance(other, Tubal) or other.shape != self.shape:
            return super().__add__(other)
        return Tubal(torch.cat((self.left, other.left), -2), torch.cat((self.right, other.right), -3))

    def __mul__(self, other: Any) -> Tubal:
        """Times a number."""
        if isinstance(other, Format):
            return NotImplemented
        return Tubal(self.left * other, self.right)

    def inner(self, other: Tubal) -> Tensor:
        """``Σ X Y`` over all modes, of shape (*batch), in O(r s (n + m)) operations a frequency."""
        if not isinstance(other, Tubal) or other.shape != self.shape:
            raise ValueError(f"{self!r} has no inner product with {other!r}: two Tubals of one shape are needed")
        (p, q), (s, t) = self.frequencies(), other.frequencies()
        each = ((p.mH @ s) * (t @ q.mH).mT).sum((-2, -1)).real  # tr((p q)ᴴ s t), one number a frequency
        share = weights(self.length, each.device).to(each.dtype)
        return (each * share).sum(-1).to(self.dtype)

    def norm(self) -> Tensor:
        """The Frobenius norm, of shape (*batch); exact to half of the dtype's digits, as a root of ``inner``."""
        return self.inner(self).clamp(min=0).sqrt()

    def __getitem__(self, index: Any) -> Tubal:
        """The sub-tensor of slices of the first two modes; tubes stay whole, and batch dimensions are not indexed."""
        asked = index if isinstance(index, tuple) else (index,)
        if len(asked) > 2 or not all(isinstance(one, slice) for one in asked):
            raise IndexError(
                f"the index {index} does not fit {self!r}; give one or two slices, of the first two modes"
            )
        first, second = (*asked, slice(None), slice(None))[:2]
        return Tubal(self.left[..., first, :, :], self.right[..., second, :])

    def multiply(self, x: Tensor, mode: int) -> Tubal:
        """The product with a matrix (k, n) on mode 0 or (k, m) on mode 1."""
        if mode not in (0, 1) or x.ndim != 2 or x.shape[1] != self.shape[self.batch + mode]:
            raise ValueError(
                f"x of shape {tuple(x.shape)} cannot multiply mode {mode} of {self!r}; choose mode 0 with a matrix "
                "(k, n) or "
                "mode 1 with a matrix (k, m)"
            )
        if mode == 1:
            return self.transpose().multiply(x, 0).transpose()
        return Tubal((self.left.movedim(-3, -1) @ x.mT).movedim(-1, -3), self.right)

    def entries(self, index: Tensor) -> Tensor:
        """Single entries: ``index`` of shape (*any, 3) gives (*batch, *any); r l products each."""
        check_index(index, self.shape, self.batch)
        flat, length = index.long().reshape(-1, 3), self.length
        left = self.left.movedim(-3, 0)[flat[:, 0]]
        right = self.right.movedim(-2, 0)[flat[:, 1]]  # (entries, *batch, r, l)
        # position p of left meets position k - p of right
        turned = (flat[:, 2, None] - torch.arange(length, device=index.device)) % length
        turned = turned.reshape(len(flat), *[1] * (self.batch + 1), length)
        sums = (left * right.gather(-1, turned.expand(right.shape))).flatten(-2).sum(-1)
        return sums.movedim(0, -1).reshape((*self.shape[: self.batch], *index.shape[:-1]))

    def round(self, rank: int | None = None, *, tol: float | None = None) -> Tubal:
        """The closest of tubal rank ``rank``, or of the least within the relative error ``tol``.

        O(r² (n + m)) operations a frequency.
        """
        _check.real("round", self)
        left, right = self.frequencies()
        (p, s), (q, t) = torch.linalg.qr(left), torch.linalg.qr(right.mH)
        u, core = truncate(s @ t.mH, self.length, rank, tol)
        left, right = (from_frequencies(part, self.length).to(self.dtype) for part in (p @ u, core @ q.mH))
        return Tubal(left.contiguous(), right.contiguous())

    @classmethod
    def fits(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) >= 3

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal factors of rank about half the smaller of the first two modes; leading dimensions are a batch."""
        if not cls.fits(shape):
            raise ValueError(
                f"shape={shape} has {len(shape)} modes; a Tubal needs three or more, the last for the tubes"
            )
        *lead, n, m, length = shape
        rank = max(1, min(n, m) // 2)
        left = torch.randn(*lead, n, rank, length, generator=generator, dtype=dtype)
        return cls(left, torch.randn(*lead, rank, m, length, generator=generator, dtype=dtype))
