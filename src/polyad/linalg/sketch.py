"""Random linear maps that shorten the rows of a matrix and nearly keep norms and inner products.

Each sketch S of shape (m, n) satisfies E[SᵀS] = I, is drawn once by ``draw`` and applied by ``apply`` to x of shape
(*batch, n, k), giving (*batch, m, k) in x's dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from polyad import _check

_RADIX = 32  # a product with a 32 x 32 Hadamard matrix reads memory once where five butterflies read it five times


def default_generator(generator: Generator | None) -> Generator:
    """The generator itself, or a new one with seed 0, so that calls without one give the same result."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def walsh_hadamard(x: Tensor) -> Tensor:
    """H x for x of shape (*batch, n, k), n a power of two and H the ±1 Hadamard matrix in Sylvester's order.

    The transform is its own inverse up to the factor n. Cost: O(n log n) per column.

    >>> walsh_hadamard(torch.tensor([[1.0], [2.0], [3.0], [4.0]])).flatten()
    tensor([10., -2., -4.,  0.])
    """
    n = x.shape[-2]
    if n & (n - 1):
        raise ValueError(f"the Walsh-Hadamard transform of {n} rows needs a power of two; pad x with rows of zeros")
    shape, rest, inner = x.shape, n, x.shape[-1]
    while rest > 1:
        radix = min(_RADIX, rest)
        rest //= radix
        x = _hadamard(radix, x) @ x.reshape(*shape[:-2], rest, radix, inner)
        inner *= radix
    return x.reshape(shape)


def _hadamard(n: int, like: Tensor) -> Tensor:
    h = torch.ones(1, 1, dtype=like.dtype, device=like.device)
    while len(h) < n:
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)))
    return h


def random_signs(n: int, generator: Generator) -> Tensor:
    """n integers of ±1."""
    return torch.randint(0, 2, (n,), generator=generator) * 2 - 1


def check_rows(x: Tensor, n: int) -> Tensor:
    """Refuse x unless it has n rows of floating-point numbers. Returns x."""
    _check.floating("x", x)
    if x.ndim < 2 or x.shape[-2] != n:
        raise ValueError(f"x of shape {tuple(x.shape)} must have the {n} rows that the sketch was drawn for")
    return x


def check_size(rows: int, n: int) -> None:
    """Refuse empty sketches."""
    _check.at_least("rows", rows, 1)
    _check.at_least("n", n, 1)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent normal entries of variance 1/m. Cost: m n per column.

    >>> Gaussian.draw(3, 8).apply(torch.ones(8, 2)).shape
    torch.Size([3, 2])
    """

    matrix: Tensor

    @classmethod
    def draw(cls, rows: int, n: int, *, generator: Generator | None = None) -> Gaussian:
        check_size(rows, n)
        return cls(
            torch.randn(rows, n, generator=default_generator(generator), dtype=torch.float64) / math.sqrt(rows)
        )

    def apply(self, x: Tensor) -> Tensor:
        return self.matrix.to(x) @ check_rows(x, self.matrix.shape[-1])


@dataclass(frozen=True, eq=False)
class SRHT:
    """Random signs, a Hadamard transform and a uniform choice of rows (with replacement), scaled by 1/√m.

    n that is no power of two is padded with zeros. Cost: n log n per column, whatever m is.

    >>> x = torch.eye(4)
    >>> sketch = SRHT.draw(4000, 4)
    >>> torch.allclose(sketch.apply(x).T @ sketch.apply(x), x, atol=0.1)
    True
    """

    signs: Tensor
    index: Tensor

    @classmethod
    def draw(cls, rows: int, n: int, *, generator: Generator | None = None) -> SRHT:
        check_size(rows, n)
        generator = default_generator(generator)
        return cls(random_signs(n, generator), torch.randint(0, next_power_of_two(n), (rows,), generator=generator))

    def apply(self, x: Tensor) -> Tensor:
        transformed = mix_rows(check_rows(x, len(self.signs)), self.signs)
        return transformed[..., self.index.to(x.device), :] / math.sqrt(len(self.index))


def next_power_of_two(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()


def mix_rows(x: Tensor, signs: Tensor) -> Tensor:
    """H D x for x padded with zeros to a power of two rows, where D is the diagonal of signs."""
    n = x.shape[-2]
    x = x * signs.to(x).unsqueeze(-1)
    return walsh_hadamard(torch.nn.functional.pad(x, (0, 0, 0, next_power_of_two(n) - n)))


@dataclass(frozen=True, eq=False)
class SparseSign:
    """OSNAP: every column has s entries ±1/√s, one in each of s bands of rows; s = 1 is the CountSketch.

    Cost: s operations per number of x.

    >>> SparseSign.draw(4, 9, nonzeros=2).apply(torch.eye(9)).count_nonzero(0).tolist()
    [2, 2, 2, 2, 2, 2, 2, 2, 2]
    """

    index: Tensor  # (s, n), the row of each entry
    signs: Tensor  # (s, n)
    rows: int

    @classmethod
    def draw(cls, rows: int, n: int, *, nonzeros: int = 8, generator: Generator | None = None) -> SparseSign:
        check_size(rows, n)
        _check.rank(nonzeros, rows, f"the {rows} rows of the sketch", "nonzeros")
        generator = default_generator(generator)
        edges = torch.arange(nonzeros + 1) * rows // nonzeros
        width = edges.diff().unsqueeze(1)
        place = (torch.rand(nonzeros, n, generator=generator, dtype=torch.float64) * width).long()
        signs = random_signs(nonzeros * n, generator).reshape(nonzeros, n)
        return cls(edges[:-1].unsqueeze(1) + torch.minimum(place, width - 1), signs, rows)

    def apply(self, x: Tensor) -> Tensor:
        s, n = self.index.shape
        check_rows(x, n)
        out = x.new_zeros(*x.shape[:-2], self.rows, x.shape[-1])
        for index, signs in zip(self.index.to(x.device), self.signs, strict=True):
            out = out.index_add(-2, index, x * (signs.to(x) / math.sqrt(s)).unsqueeze(-1))
        return out


def count_sketch(rows: int, n: int, *, generator: Generator | None = None) -> SparseSign:
    """The CountSketch: every row of x is added to, or subtracted from, one row of the result.

    >>> count_sketch(4, 9).apply(torch.ones(9, 1)).abs().sum() <= 9
    tensor(True)
    """
    return SparseSign.draw(rows, n, nonzeros=1, generator=generator)
