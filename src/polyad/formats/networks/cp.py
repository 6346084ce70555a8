"""Sums of outer products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.einsum import symbol
from polyad.formats.networks.assignment import best_assignment
from polyad.formats.networks.multilinear import Multilinear


@dataclass(frozen=True, eq=False, repr=False)
class CP(Multilinear):
    """``X = Σ_r weights[r] · factors[0][:, r] ∘ factors[1][:, r] ∘ …``, the canonical polyadic format.

    ``factors[n]`` has shape (*batch, I_n, R), ``weights`` (*batch, R) or is None for ones. Stores R (Σ I_n + 1)
    numbers.

    >>> x = CP((torch.ones(3, 2), torch.ones(4, 2), torch.ones(5, 2)))
    >>> x.shape, x.rank, round(float((x + x)[0].norm()), 3)
    ((3, 4, 5), 2, 17.889)
    """

    no_round_because: ClassVar[str] = (
        "the best sum of fewer terms is not part of it, and may not exist; cp_als looks for one, and "
        "convert(x, Tucker) can be rounded"
    )

    factors: tuple[Tensor, ...]
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        lead: set[tuple[int, ...]] = {
            (*factor.shape[:-2], factor.shape[-1]) for factor in self.factors if factor.ndim >= 2
        }
        if self.weights is not None:
            lead.add(tuple(self.weights.shape))
        if not self.factors or len(lead) != 1 or any(factor.ndim < 2 for factor in self.factors):
            weights = None if self.weights is None else tuple(self.weights.shape)
            raise ValueError(
                f"factors of shapes {[tuple(f.shape) for f in self.factors]} and weights of shape {weights} do not "
                "agree: (*batch, I_n, R) and (*batch, R) are needed, with one batch and one R"
            )

    @property
    def rank(self) -> int:
        return self.factors[0].shape[-1]

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        r, n = symbol(0), len(self.factors)
        modes = [symbol(1 + i) for i in range(n)]
        terms = [mode + r for mode in modes] + ([] if self.weights is None else [r])
        weights = () if self.weights is None else (self.weights,)
        return f"{','.join(terms)}->{''.join(modes)}", (*self.factors, *weights)

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        if self.weights is None:
            return type(self)(tuple(operands))
        return type(self)(tuple(operands[:-1]), operands[-1])

    def transpose(self) -> CP:
        return CP((*self.factors[:-2], self.factors[-1], self.factors[-2]), self.weights)

    def rows(self, index: Tensor) -> Tensor:
        left = self.factors[0] if self.weights is None else self.factors[0] * self.weights
        return left[index] @ self.factors[1].mT

    def normalize(self) -> CP:
        """The same sum with columns of length one and weights that are not negative, in the same order.

        The entry of greatest magnitude is positive in each column of all factors but the last, which takes what sign
        (or, of complex numbers, phase) is left. Terms of zero get the first unit vectors and the weight zero.
        Products of lengths are taken in float64. Gradients flow.

        >>> x = CP((torch.tensor([[3.0], [-4.0]]), torch.tensor([[2.0]]))).normalize()
        >>> x.weights, x.factors[0].T, x.factors[1]
        (tensor([10.]), tensor([[-0.6000,  0.8000]]), tensor([[-1.]]))
        """
        work = torch.promote_types(self.dtype, torch.float64)
        factors = [factor.to(work) for factor in self.factors]
        weights = factors[0].new_ones(()) if self.weights is None else self.weights.to(work)
        length = weights.abs().expand(*factors[0].shape[:-2], self.rank)
        phase = torch.where(length > 0, weights / torch.where(length > 0, length, 1), 1)
        unit: list[Tensor] = []
        for place, factor in enumerate(factors):
            size = torch.linalg.vector_norm(factor, dim=-2)
            length = length * size
            first = torch.zeros_like(factor)
            first[..., 0, :] = 1
            column = torch.where(
                (size > 0).unsqueeze(-2), factor / torch.where(size > 0, size, 1).unsqueeze(-2), first
            )
            if place < len(factors) - 1:
                top = column.gather(-2, column.detach().abs().argmax(-2, keepdim=True)).squeeze(-2)
                turn = top / top.abs()
                column, phase = column * turn.conj().unsqueeze(-2), phase * turn
            unit.append(column)
        unit[-1] = unit[-1] * phase.unsqueeze(-2)
        return CP(tuple([column.to(self.dtype) for column in unit]), length.to(self.dtype))

    def permute(self, order: Sequence[int] | Tensor) -> CP:
        """The same sum with its terms in this order, each named once.

        >>> CP((torch.tensor([[1.0, 2.0]]),), torch.ones(2)).permute((1, 0)).factors[0]
        tensor([[2., 1.]])
        """
        index = torch.as_tensor(order, device=self.factors[0].device)
        if index.is_floating_point() or sorted(index.flatten().tolist()) != list(range(self.rank)):
            raise ValueError(f"order={order} must name each of the {self.rank} terms once, from 0 to {self.rank - 1}")
        weights = None if self.weights is None else self.weights[..., index]
        return CP(tuple([factor[..., index] for factor in self.factors]), weights)

    def congruence(self, other: CP) -> Tensor:
        """The congruence of each term with each of another sum, (*batch, R, R') in [0, 1].

        It is the product over the modes of the magnitudes of the cosines between their columns: 1 where two terms
        differ by a number alone. Weights play no part; terms of zero score 0.
        """
        if not isinstance(other, CP):
            raise TypeError(f"other is a {type(other).__name__}; a CP is needed")
        if other.shape != self.shape or other.batch != self.batch:
            raise ValueError(f"sums of shapes {self.shape} and {other.shape} have no terms to compare")
        score = torch.ones((), dtype=torch.float64, device=self.factors[0].device)
        for a, b in zip(self.factors, other.factors, strict=True):
            wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float64)
            a, b = (torch.nn.functional.normalize(x.to(wide), dim=-2, eps=1e-300) for x in (a, b))
            score = score * (a.mH @ b).abs()
        return score.clamp(max=1)

    def align(self, reference: CP) -> tuple[CP, Tensor]:
        """The same sum with its terms in the order that fits those of ``reference`` best, and their congruences (R,).

        Of all orders it is the one whose congruences (see ``congruence``) add up to the most; their mean, 1 where all
        terms agree, says how well two decompositions of one rank match. Signs and lengths stay: ``normalize`` settles
        these. Raises ValueError for batches and unless shapes and ranks are equal.

        >>> x = CP.random((5, 4, 4), generator=torch.Generator().manual_seed(0))
        >>> again, congruences = x.permute((1, 0)).align(x)
        >>> torch.equal(again.factors[1], x.factors[1]), congruences.round(decimals=6)
        (True, tensor([1., 1.], dtype=torch.float64))
        """
        scores = self.congruence(reference)
        if self.batch or self.rank != reference.rank:
            raise ValueError(
                f"{self!r} of rank {self.rank} is not aligned with {reference!r} of rank {reference.rank}; one "
                "tensor each, of equal ranks, is needed, else see congruence"
            )
        order = best_assignment(scores.mT)
        return self.permute(order), scores[order, torch.arange(self.rank)]

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal factors and weights from 1 to 2; rank about half the smallest mode."""
        rank = max(1, min(shape) // 2)
        factors = tuple([torch.randn(n, rank, generator=generator, dtype=dtype) for n in shape])
        return cls(factors, 1 + torch.rand(rank, generator=generator, dtype=dtype))
