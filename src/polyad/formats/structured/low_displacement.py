"""Sums of products of two circulants: matrices of low displacement rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from polyad import _check
from polyad.formats.format import Format
from polyad.formats.structured.fourier import fast_length, transform_operations
from polyad.linalg import evenly, single_or_double, truncated_svd

_COLUMNS = 256
"""Columns that are formed at once where only their norm is wanted."""


def shifts_for(n: int, m: int) -> tuple[float, float]:
    """Shifts e and f for n x m matrices, from whose displacement the generators are read off without solving."""
    return (1.0, -1.0) if n == m else (1.0, 0.0) if n > m else (0.0, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class LowDisplacement(Format):
    """``W = Σ_k C_e(left[:, k]) E C_f(right[:, k])``: left (*batch, n, r), right (*batch, m, r), ``shifts`` (e, f).

    C_f(h) is the f-circulant matrix of first column h, whose entries above the diagonal are multiplied by f
    (circulant for 1, skew-circulant for -1, lower triangular Toeplitz for 0), and E the first m columns of the
    identity. Such W have displacement rank at most r: ``Z_e W - W Z_f``, with Z_f the f-circulant shift down, is of
    rank r. Toeplitz matrices and their inverses have rank 2, their products and sums a little more. ``transposed``
    stands for Wᵀ instead.

    Stores r (n + m) numbers. ``linear`` takes 2 r + 2 real transforms a row, of length about 2 n and 2 m (n where e
    is 1 and n transforms fast), and 2 r more a call: O(r n log n). Half precision is transformed in float32. Sums of
    the same shifts add ranks. In float32 on one core with 64 rows at rank 2: faster than dense from n = 1024.

    >>> w = LowDisplacement(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [1.0]]))
    >>> w.to_dense()
    tensor([[ 3.,  1.],
            [ 3., -1.]])
    """

    left: Tensor
    right: Tensor
    shifts: tuple[float, float] = (1.0, -1.0)
    transposed: bool = False

    def __post_init__(self) -> None:
        _check.real_tensors("LowDisplacement", self.left, self.right)
        left, right = self.left.shape, self.right.shape
        if len(left) < 2 or len(right) < 2 or left[:-2] != right[:-2] or left[-1] != right[-1]:
            raise ValueError(
                f"left of shape {tuple(left)} and right of shape {tuple(right)} do not agree: (*batch, n, r) and "
                "(*batch, m, r) are needed, with one batch and one r"
            )
        if len(self.shifts) != 2:
            raise ValueError(f"shifts={self.shifts} must be two numbers, e of the rows and f of the columns")

    @property
    def rank(self) -> int:
        """The number r of products, which bounds the displacement rank."""
        return self.left.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        n, m = self.left.shape[-2], self.right.shape[-2]
        return (*self.left.shape[:-2], *((m, n) if self.transposed else (n, m)))

    def to_dense(self) -> Tensor:
        m = self.shape[-1]
        x = torch.eye(m, dtype=single_or_double(self.left).dtype, device=self.device)
        return self.linear(x.expand(*self.shape[:-2], m, m)).mT.to(self.dtype)

    def linear(self, x: Tensor) -> Tensor:
        *lead, n, m = self.shape
        if x.numel() == 0:  # transforms of nothing are refused
            return x.new_zeros(*x.shape[:-1], n)
        rows = single_or_double(x).reshape(*lead, -1, m)
        (first, f), (second, e) = self._stages(rows.dtype)
        if self.transposed:  # a transposed f-circulant is the same one between two mirrors
            rows = rows.flip(-1)
        length = _length(m, f)
        spectrum = torch.fft.rfft(rows, n=length).unsqueeze(-2) * torch.fft.rfft(first, n=length)
        inner = _fold(torch.fft.irfft(spectrum, n=length), m, f)  # (*batch, rows, r, m)
        inner = F.pad(inner, (n - m, 0) if self.transposed else (0, n - m))
        length = _length(n, e)
        spectrum = (torch.fft.rfft(inner, n=length) * torch.fft.rfft(second, n=length)).sum(-2)
        product = _fold(torch.fft.irfft(spectrum, n=length), n, e)
        product = product.flip(-1) if self.transposed else product
        return product.reshape(*x.shape[:-1], n).to(x.dtype)

    def _stages(self, dtype: torch.dtype) -> tuple[tuple[Tensor, float], tuple[Tensor, float]]:
        """Generators (*batch, 1, r, size) and shifts, in the order in which they are applied."""
        left, right = (
            (x.to(dtype).mT.unsqueeze(-3), s) for x, s in zip((self.left, self.right), self.shifts, strict=True)
        )
        return (left, right) if self.transposed else (right, left)

    def flops(self, batch: int) -> int:
        *lead, n, m = self.shape
        e, f = self.shifts[::-1] if self.transposed else self.shifts
        r, outer, inner = self.rank, _length(n, e), _length(m, f)
        transforms = transform_operations(outer) + transform_operations(inner)
        products = 6 * r * (inner // 2 + 1) + (8 * r - 2) * (outer // 2 + 1) + 2 * (r * m + n)
        return math.prod(lead) * (batch * ((r + 1) * transforms + products) + r * transforms)

    def transpose(self) -> LowDisplacement:
        return LowDisplacement(self.left, self.right, self.shifts, not self.transposed)

    def rows(self, index: Tensor) -> Tensor:
        n = self.shape[-2]
        row = torch.arange(n, device=self.device)[index]  # refuses what is out of range
        chosen = row.unsqueeze(-1) == torch.arange(n, device=self.device)
        return self.transpose().linear(chosen.to(single_or_double(self.left).dtype)).to(self.dtype)

    def __add__(self, other: Format) -> Format:
        """The sum, with ranks added where ``other`` has the same shape and shifts. Otherwise a ``Sum``."""
        if (
            isinstance(other, LowDisplacement)
            and other.shape == self.shape
            and (other.shifts, other.transposed) == (self.shifts, self.transposed)
        ):
            left, right = torch.cat((self.left, other.left), -1), torch.cat((self.right, other.right), -1)
            return LowDisplacement(left, right, self.shifts, self.transposed)
        return super().__add__(other)

    def __mul__(self, other: Any) -> LowDisplacement:
        """Times a number."""
        if isinstance(other, Format):
            return NotImplemented
        return LowDisplacement(self.left * other, self.right, self.shifts, self.transposed)

    def norm(self) -> Tensor:
        """The Frobenius norm, of shape (*batch), from the columns, some at a time: O(r m n log n) operations."""
        m = self.shape[-1]
        columns = torch.eye(m, dtype=single_or_double(self.left).dtype, device=self.device)
        parts = [self.linear(part.expand(*self.shape[:-2], *part.shape)) for part in columns.split(_COLUMNS)]
        norms = [torch.linalg.vector_norm(part, dim=(-2, -1)) for part in parts]
        return torch.linalg.vector_norm(torch.stack(norms), dim=0).to(self.dtype)

    def round(self, rank: int | None = None, *, tol: float | None = None) -> LowDisplacement:
        """Of at most ``rank`` products, or of the fewest found within a relative Frobenius error of ``tol``.

        W is linear in left rightᵀ, which is cut to its leading singular triples: what is redundant goes without an
        error, but what errs least there *need not be closest to W*. So ``tol`` holds for W itself, from the norm of
        what is cut, at some ranks on the way of a bisection; in a batch for each.

        >>> w = LowDisplacement(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [1.0]]))
        >>> (w + w).rank, (w + w).round(tol=1e-6).rank
        (2, 1)
        """
        _check.exactly_one(rank=rank, tol=tol)
        if rank is not None:
            rank = _check.rank(min(rank, self.rank), self.rank, "the rank that there is")
        if tol is not None:
            _check.tolerance(tol)
        left, right = (t.to(single_or_double(self.left).dtype) for t in (self.left, self.right))
        (p, s), (q, t) = torch.linalg.qr(left), torch.linalg.qr(right)
        core = s @ t.mT
        outer, inner = evenly(*truncated_svd(core, min(core.shape[-2:])))
        whole = LowDisplacement(p @ outer, q @ inner.mT, self.shifts, self.transposed)
        if tol is not None:
            with torch.no_grad():
                rank = whole._least(tol)
        assert rank is not None
        left, right = whole.left[..., :rank].to(self.dtype), whole.right[..., :rank].to(self.dtype)
        return LowDisplacement(left.contiguous(), right.contiguous(), self.shifts, self.transposed)

    def _least(self, tol: float) -> int:
        """A rank, found by bisection, whose rest has at most a share ``tol`` of the norm, in each of a batch."""
        allowed = tol * self.norm()
        low, high = 0, self.rank
        while high - low > 1:
            middle = (low + high) // 2
            rest = LowDisplacement(self.left[..., middle:], self.right[..., middle:], self.shifts, self.transposed)
            low, high = (low, middle) if bool((rest.norm() <= allowed).all()) else (middle, high)
        return high

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal generators of rank 2, and the shifts of ``shifts_for``."""
        *lead, n, m = shape
        left = torch.randn(*lead, n, 2, generator=generator, dtype=dtype)
        return cls(left, torch.randn(*lead, m, 2, generator=generator, dtype=dtype), shifts_for(n, m))


def _length(n: int, shift: float) -> int:
    """The length of transform that multiplies with an f-circulant matrix of size n."""
    return n if shift == 1 and fast_length(n) == n else fast_length(2 * n - 1)


def _fold(x: Tensor, n: int, shift: float) -> Tensor:
    """The remainder of a polynomial modulo z^n - shift: its head, plus ``shift`` times its higher coefficients."""
    if x.shape[-1] == n or shift == 0:
        return x[..., :n]
    return x[..., :n] + shift * F.pad(x[..., n : 2 * n - 1], (0, 1))
