"""One equation behind SVD, QR, UTV, CUR, generalised Nyström and the pseudoinverse."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method


class MetaFactors(NamedTuple):
    """A ≈ F M G with F = A Y, M = (Xᵀ A Y)⁺ and G = Xᵀ A; ``y`` and ``x`` are the choices as matrices or indices."""

    f: Tensor
    m: Tensor
    g: Tensor
    y: Tensor
    x: Tensor

    def product(self) -> Tensor:
        """F M G, which is A wherever Xᵀ A Y has the rank of A (the reconstruction equation)."""
        return self.f @ (self.m @ self.g)

    def left(self) -> Tensor:
        """F M: the factor that the right one is multiplied with, such as Q of QR."""
        return self.f @ self.m

    def right(self) -> Tensor:
        """M G."""
        return self.m @ self.g

    def inverse(self) -> Tensor:
        """Y M Xᵀ, an outer inverse of A; the pseudoinverse where X spans A's columns and Y its rows."""
        return _expand(self.y, self.f.shape[-1], self.g, rows=True) @ (
            self.m @ _expand(self.x, self.g.shape[-2], self.f, rows=False).mT
        )


def _expand(choice: Tensor, count: int, other: Tensor, *, rows: bool) -> Tensor:
    """A choice as a matrix; indices become columns of the identity."""
    if choice.is_floating_point():
        return choice
    n = other.shape[-1] if rows else other.shape[-2]
    matrix = torch.zeros(n, count, dtype=other.dtype, device=other.device)
    matrix[choice, torch.arange(count, device=other.device)] = 1
    return matrix


def _check_choice(name: str, choice: Tensor, size: int) -> Tensor:
    """Refuse what is neither a matrix of ``size`` rows nor indices below ``size``. Returns the choice."""
    if choice.is_floating_point():
        _check.finite(name, choice)
        if choice.ndim < 2 or choice.shape[-2] != size:
            raise ValueError(
                f"{name} of shape {tuple(choice.shape)} must have {size} rows, as the other side of a; "
                f"give a matrix ({size}, k), or k integer indices"
            )
    elif choice.ndim != 1 or choice.dtype == torch.bool or not len(choice):
        raise ValueError(f"{name} of shape {tuple(choice.shape)} and {choice.dtype} is neither matrix nor k indices")
    elif int(choice.min()) < 0 or int(choice.max()) >= size:
        raise ValueError(
            f"{name} holds indices from {int(choice.min())} to {int(choice.max())}; allowed: 0 to {size - 1}"
        )
    return choice


@method(
    "solve",
    example={
        "arguments": lambda g: _draw_matrix(g), "off": lambda factors, a, **_: _loss(factors, a),
        "scale": ("a", "y", "x"),
    },
    papers=(Paper("Karpowicz", 2021, "A theory of meta-factorization", "arXiv:2111.14385", "meta-factorization",
                  "the reconstruction equation A = A Y (Xᵀ A Y)⁺ Xᵀ A and its choices of Y and X"),),
)  # fmt: skip
def meta_factorization(a: Tensor, y: Tensor, x: Tensor, *, rtol: float | None = None) -> MetaFactors:
    """The factors of A Y (Xᵀ A Y)⁺ Xᵀ A for a of shape (*batch, n, m), y (m, k) and x (n, l).

    The choice of Y and X decides what comes out; what remains is zero if and only if Xᵀ A Y has the rank of A:

    - leading right and left singular vectors: M = S⁻¹, and F M G is the truncated SVD
    - Y = I and X = Q of a QR factorisation: F M = Q, G = R; any two orthogonal bases: the core of a UTV factorisation
    - indices for y and x: CUR, with columns F, rows G and M the pseudoinverse of their intersection
    - sketches for both: generalised Nyström; Y = Xᵀ A by one sketch: the randomised range finder's projection
    - Y = Aᵀ and X = A: ``inverse()`` is the pseudoinverse of A; also for any bases of its rows and columns

    Integer ``y`` and ``x`` choose columns and rows without multiplying. Singular values of Xᵀ A Y below ``rtol``
    times the largest count as zero; by default max(k, l) times the machine's epsilon. The dtype of a is kept
    (half precision is refused). Cost: n m (k + l) and a pseudoinverse of size l x k. Gradients flow.

    Raises ValueError for choices of other sizes and for NaN and infinities.

    >>> a = torch.tensor([[2.0, 1.0, 3.0], [4.0, 2.0, 6.0], [1.0, 0.0, 1.0]])
    >>> cur = meta_factorization(a, torch.tensor([0, 1]), torch.tensor([0, 2]))
    >>> torch.allclose(cur.product(), a, atol=1e-5), cur.f.shape
    (True, torch.Size([3, 2]))
    """
    _check.floating("a", a)
    _check.finite("a", _check.dimensions("a", a, 2))
    if a.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"a has dtype {a.dtype}; pseudoinverses need float32 or float64: a.float()")
    n, m = a.shape[-2:]
    y, x = _check_choice("y", y, m), _check_choice("x", x, n)
    f = a @ y.to(a) if y.is_floating_point() else a[..., :, y]
    g = x.to(a).mT @ a if x.is_floating_point() else a[..., x, :]
    core = x.to(a).mT @ f if x.is_floating_point() else f[..., x, :]
    rtol = max(core.shape[-2:]) * torch.finfo(a.dtype).eps if rtol is None else rtol
    scale = core.detach().abs().amax((-2, -1), keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    return MetaFactors(f, torch.linalg.pinv(core / scale, rtol=rtol) / scale, g, y, x)


def _draw_matrix(generator: Generator) -> dict[str, Any]:
    """A matrix of rank four, and as many combinations of its columns and of its rows."""
    left, right, y, x = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((20, 4), (4, 15), (15, 4), (20, 4))
    )
    return {"a": left @ right, "y": y, "x": x}


def _loss(factors: MetaFactors, a: Tensor) -> float:
    """The loss of the factors' product on a matrix of their rank, in ten thousands of roundings."""
    scale = a.abs().max()
    loss = (factors.product() / scale - a / scale).norm() / (a / scale).norm()
    return float(loss) / (1e4 * torch.finfo(a.dtype).eps)
