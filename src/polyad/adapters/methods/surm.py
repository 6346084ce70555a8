"""Updates of full rank by a line of numbers: circulant and Toeplitz matrices, and Kronecker products."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import Format, Kronecker
from polyad.formats.structured.grid import balanced_divisor
from polyad.formats.structured.toeplitz import Toeplitz
from polyad.linalg.scaling import single_or_double

Family = Literal["circulant", "symmetric", "toeplitz", "product", "kronecker"]
"""What the update is: circulant, symmetric Toeplitz, Toeplitz, a product of two circulants, a Kronecker product."""


@method(
    "adapter",
    makes=None,
    name="surm",
    example={"family": "product"},
    papers=(
        Paper(
            "Sehanobish, Dubey, Choromanski, Basu Roy Chowdhury, Jain, Sindhwani, Chaturvedi",
            2024,
            "Structured Unrestricted-Rank Matrices for Parameter Efficient Fine-tuning",
            "arXiv:2406.17740",
            handle="surm",
        ),
    ),
)
class SURM(Adapter):
    """``ΔW = alpha · M`` with M of a ``family`` of matrices of unrestricted rank and few numbers.

    With N = max(out, in): ``"circulant"`` trains N numbers, M[i, j] = v[(i - j) mod N]; ``"symmetric"`` N as well,
    v[|i - j|]; ``"toeplitz"`` out + in - 1, one a diagonal; ``"product"`` 2 N, a product of two circulants, the first
    (out, N) and zero, the second (N, in) and normal of variance 1 / N; ``"kronecker"`` first ⊗ second, near to square
    in their sides, the first normal and the second zero. One that is not square is the upper left
    part of one that is. All start at zero. The first four are applied by Fourier transforms of O(N log N) operations
    a row, or folded into the weight where that is cheaper.

    The paper's adapters of bottleneck form, and sums of products of f-circulants, are not here.

    >>> [sum(p.numel() for p in SURM((6, 8), family=f).parameters()) for f in ("circulant", "toeplitz", "product")]
    [8, 13, 16]
    """

    learning_rate = 0.001

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        family: Family = "circulant",
        alpha: float = 1.0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = self.sides = matrix(shape)
        self.family, self.scale, long = family, alpha, max(out, n)
        if family not in get_args(Family):
            raise ValueError(f"family={family!r} is unknown; choose from {list(get_args(Family))}")
        if family == "kronecker":
            a, c = balanced_divisor(out), balanced_divisor(n)
            self.v = nn.Parameter(torch.zeros(1, out // a, n // c))
            self.u = nn.Parameter(torch.randn(1, a, c, generator=generator) / c**0.5)
            return
        self.v = nn.Parameter(torch.zeros(out + n - 1 if family == "toeplitz" else long))
        if family == "product":
            self.u = nn.Parameter(torch.randn(long, generator=generator) / long**0.5)

    def update(self, base: Frozen) -> Format:  # noqa: ARG002
        out, n = self.sides
        if self.family == "kronecker":
            return Kronecker(self.u, self.v)
        if self.family == "toeplitz":
            return Toeplitz(self.v, n)
        if self.family == "product":  # of whole circulants: their spectra multiply, and one transform is left
            long = len(self.v)
            v, u = single_or_double(self.v), single_or_double(self.u)
            both = torch.fft.irfft(torch.fft.rfft(v) * torch.fft.rfft(u), n=long)
            return _around(both.to(self.v.dtype), out, n)
        return _around(self.v, out, n, symmetric=self.family == "symmetric")

    def few(self, x: Tensor) -> Tensor | None:
        if self.family != "product" or not x.numel():
            return None
        v, u, long = single_or_double(self.v), single_or_double(self.u), len(self.v)
        spectrum = torch.fft.rfft(x.to(v.dtype), n=long).mul_(torch.fft.rfft(u)).mul_(torch.fft.rfft(v))
        return torch.fft.irfft(spectrum, n=long)[..., : self.sides[0]].to(x.dtype)


def _around(v: Tensor, out: int, n: int, *, symmetric: bool = False) -> Toeplitz:
    """The upper left (out, n) of the circulant matrix of v, or of the symmetric Toeplitz one."""
    above = v[1:n].flip(0) if symmetric else v[len(v) + 1 - n :]  # the diagonals above the main one
    return Toeplitz(torch.cat((above, v[:out])), n)
