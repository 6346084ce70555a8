"""Sketches of Kronecker products that never form them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from polyad.linalg.sketch import check_rows, check_size, default_generator, mix_rows, next_power_of_two, random_signs


@dataclass(frozen=True, eq=False)
class TensorSRHT:
    """A sketch of Kronecker products that never forms them: an SRHT of each factor, sampled at common rows.

    ``apply(a, b)`` for a (*batch, n, k) and b (*batch, p, l) is S (a ⊗ b) of shape (*batch, m, k l). Cost: two
    transforms and m k l operations, where a ⊗ b alone has n p k l entries.

    >>> sketch = TensorSRHT.draw(5, (4, 3))
    >>> a, b = torch.ones(4, 2), torch.ones(3, 1)
    >>> torch.allclose(sketch.apply(a, b), sketch.apply_dense(torch.kron(a, b)))
    True
    """

    signs: tuple[Tensor, Tensor]
    index: tuple[Tensor, Tensor]

    @classmethod
    def draw(cls, rows: int, n: tuple[int, int], *, generator: Generator | None = None) -> TensorSRHT:
        check_size(rows, min(n))
        g = default_generator(generator)
        signs = (random_signs(n[0], g), random_signs(n[1], g))
        first, second = (torch.randint(0, next_power_of_two(size), (rows,), generator=g) for size in n)
        return cls(signs, (first, second))

    def apply(self, a: Tensor, b: Tensor) -> Tensor:
        first, second = (
            mix_rows(check_rows(x, len(signs)), signs)[..., index, :]
            for x, signs, index in zip((a, b), self.signs, self.index, strict=True)
        )
        joint = first.unsqueeze(-1) * second.unsqueeze(-2)
        return joint.flatten(-2) / math.sqrt(len(self.index[0]))

    def apply_dense(self, x: Tensor) -> Tensor:
        """S x for x of shape (*batch, n p, k), as right-hand sides have it."""
        n, p = (len(signs) for signs in self.signs)
        x = check_rows(x, n * p).unflatten(-2, (n, p))
        x = mix_rows(x, self.signs[1]).movedim(-3, -2)  # (*batch, p', n, k)
        return mix_rows(x, self.signs[0])[..., self.index[1], self.index[0], :] / math.sqrt(len(self.index[0]))
