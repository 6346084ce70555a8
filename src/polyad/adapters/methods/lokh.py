"""An update whose columns are Kronecker products of columns."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.decompose.matrices.masked_als import LU
from polyad.formats import Format, KhatriRao
from polyad.layers import Factors


@method("adapter", name="lokh", example={"first": 2}, papers=(LU,))
class LoKH(Adapter):
    """``ΔW[:, j] = alpha · Σ_k P_k[:, j] ⊗ Q_k[:, j]``, the Khatri-Rao product of P and Q.

    P is (first, in), Q (out / first, in), and ``rank`` is the number of terms. P is normal with variance 1 / first
    and Q zero, so that nothing changes at first. ``first`` must divide out; by default it is the divisor nearest to
    √out, for which the numbers, rank (first + out / first) in, are fewest. The rank of ΔW is full in general, so no
    product is cheaper than the dense one: the host folds it into the weight.

    >>> adapter = LoKH((6, 8), generator=torch.Generator().manual_seed(0))
    >>> adapter.factors()
    KhatriRao(shape=(6, 8), rank=1, dtype=float32, parameters=40, bytes=160)
    """

    learning_rate = 0.0015

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        first: int | None = None,
        rank: int = 1,
        alpha: float = 1.0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        divisors = [k for k in range(1, out + 1) if out % k == 0]
        first = min(divisors, key=lambda k: k + out // k) if first is None else first
        if first not in divisors:
            raise ValueError(f"first={first} does not divide the {out} rows; choose from {divisors}")
        factor = torch.randn(rank, first, n, generator=generator) / first**0.5
        self.factors = Factors(KhatriRao(factor, torch.zeros(rank, out // first, n)))
        self.scale = alpha

    def update(self, base: Frozen) -> Format:  # noqa: ARG002
        return self.factors()

    def few(self, x: Tensor) -> Tensor:
        product = self.factors()
        first, second = product.first.to(x.dtype), product.second.to(x.dtype)  # (k, a, in), (k, b, in)
        terms = (x[..., None, None, :] * first) @ second.mT  # (…, k, a, b)
        return terms.sum(-3).flatten(-2)
