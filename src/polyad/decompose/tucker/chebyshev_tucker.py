"""Functions of several variables as Tucker tensors of Chebyshev coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose.tucker.hooi import hooi
from polyad.einsum import contract, symbol
from polyad.formats import Tucker

Box = tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class ChebyshevTucker:
    """``f(x) ≈ Σ c[k] T_k₁(t₁) T_k₂(t₂) …``, the coefficients c a ``Tucker`` tensor.

    t_n in [-1, 1] stands for x_n in its interval. It has no grid: it is called on points, and ``on_grid`` gives the
    Tucker tensor of its values on any grid, whose factors are Chebyshev polynomials times those of c.
    ``coefficients`` has shape (degrees[0] + 1, …) and ``box`` an interval for each variable.
    """

    coefficients: Tucker
    box: Box

    @property
    def rank(self) -> tuple[int, ...]:
        return self.coefficients.rank

    def __call__(self, points: Tensor) -> Tensor:
        """Values at points (*any, variables), of shape (*any); Σ n_k r_k + Π r_k operations each.

        >>> f = chebyshev_tucker(lambda p: p[..., 0] * p[..., 1], ((0, 1), (0, 2)), (2, 2), rank=(1, 1))
        >>> float(f(torch.tensor([0.5, 1.5])).round(decimals=6))
        0.75
        """
        if points.ndim == 0 or points.shape[-1] != len(self.box):
            raise ValueError(f"points of shape {tuple(points.shape)} must have {len(self.box)} coordinates last")
        rows = self._factors(points.reshape(-1, len(self.box)).unbind(-1))  # (points, r_n)
        inner, point = [symbol(n) for n in range(len(rows))], symbol(-1)
        terms = ",".join(point + letter for letter in inner)
        return contract(f"{''.join(inner)},{terms}->{point}", self.coefficients.core, *rows).reshape(
            points.shape[:-1]
        )

    def on_grid(self, axes: Sequence[Tensor]) -> Tucker:
        """The values on the product of these coordinates: factors (len(axis), r_n), the core unchanged.

        >>> f = chebyshev_tucker(lambda p: (p[..., 0] + p[..., 1]).exp(), ((0, 1), (0, 1)), (12, 12), tol=1e-8)
        >>> f.on_grid([torch.linspace(0, 1, 1000)] * 2)
        Tucker(shape=(1000, 1000), rank=(1, 1), dtype=float64, parameters=2001, bytes=16008)
        """
        if len(axes) != len(self.box):
            raise ValueError(f"axes has {len(axes)} entries; {len(self.box)} are needed, one for each variable")
        return Tucker(self.coefficients.core, tuple(self._factors(tuple(axes))))

    def _factors(self, coordinates: Sequence[Tensor]) -> list[Tensor]:
        factors = []
        for x, (low, high), factor in zip(coordinates, self.box, self.coefficients.factors, strict=True):
            t = (2 * x.to(factor.dtype) - (low + high)) / (high - low)
            if t.numel() and float(t.abs().max()) > 1 + 1e-6:
                raise ValueError(
                    f"coordinates from {float(x.min()):g} to {float(x.max()):g} leave [{low:g}, {high:g}], where "
                    "alone the polynomials are near the function; fit a larger box"
                )
            degrees = torch.arange(factor.shape[0], dtype=t.dtype, device=t.device)
            factors.append(torch.cos(degrees * torch.acos(t.clamp(-1, 1)).unsqueeze(-1)) @ factor)
        return factors


@method(
    "solve",
    example={
        "arguments": lambda g: _draw_function(g),
        "off": lambda found, f, box, **_: _miss(found, f, box),
        "scale": ("f",),
    },
    papers=(
        Paper(
            "Benner, Khoromskij, Khoromskaia, Sun",
            2025,
            "A mesh-free hybrid Chebyshev-Tucker tensor format with applications to multi-particle modelling",
            "arXiv:2503.01696",
            handle="cheb-tucker",
        ),
    ),
)
def chebyshev_tucker(
    f: Callable[..., Tensor],
    box: Sequence[tuple[float, float]],
    degrees: Sequence[int],
    *,
    rank: tuple[int, ...] | None = None,
    tol: float | None = None,
    on_grid: bool = False,
    dtype: torch.dtype = torch.float64,
    max_iter: int = 50,
) -> ChebyshevTucker:
    """Approximate f on a box by a Tucker tensor of Chebyshev coefficients of these degrees.

    ``f`` takes points (count, variables) and gives values (count,); with ``on_grid`` it takes the coordinates of each
    variable instead and gives the tensor of values on their product, which is cheaper where f separates. It is
    evaluated once at Π (degrees + 1) product Chebyshev nodes, a cosine transform along each mode gives the
    coefficients of the interpolating polynomial, and ``polyad.decompose.hooi`` their Tucker tensor of ranks ``rank``
    or within the relative Frobenius error ``tol``. No grid of the application is involved, and neither is its size.

    The error is that of the interpolation, which falls exponentially in the degrees for analytic f, and that of the
    truncation. Departs from the paper in its
    start, a sequentially truncated decomposition of the coefficients where the paper reduces a canonical tensor.

    Raises ValueError for a box or degrees that do not fit each other, values of another shape, NaN and infinities.

    >>> f = chebyshev_tucker(lambda p: 1 / (1 + p.square().sum(-1)), ((0, 1),) * 3, (10,) * 3, tol=1e-6)
    >>> points = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> bool((f(points) - 1 / (1 + points.square().sum(-1))).abs().max() < 1e-5)
    True
    """
    _check.iterations(max_iter)
    intervals: Box = tuple((float(low), float(high)) for low, high in box)
    if len(intervals) != len(degrees) or len(intervals) < 2 or min(degrees) < 1:
        raise ValueError(
            f"box has {len(intervals)} intervals and degrees={tuple(degrees)}; give equally many of both, 2 or more, "
            "and degrees of at least 1"
        )
    for low, high in intervals:
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"[{low}, {high}] in box is not an interval; give finite bounds, the lower first")
    axes = [_nodes(n, *interval, dtype) for n, interval in zip(degrees, intervals, strict=True)]
    shape = tuple(len(axis) for axis in axes)
    if on_grid:
        values = f(*axes)
    else:
        values = f(torch.cartesian_prod(*axes))
        values = values.reshape(shape) if values.numel() == math.prod(shape) else values
    if tuple(values.shape) != shape:
        raise ValueError(f"f gave values of shape {tuple(values.shape)} where {shape} or one a point were needed")
    values = _check.finite("f at the Chebyshev nodes", values.detach().to(dtype))
    for mode, n in enumerate(degrees):
        values = (values.movedim(mode, -1) @ _transform(n, dtype).mT).movedim(-1, mode)
    return ChebyshevTucker(hooi(values.contiguous(), rank, tol=tol, max_iter=max_iter), intervals)


def _nodes(degree: int, low: float, high: float, dtype: torch.dtype) -> Tensor:
    """The degree + 1 roots of T_{degree + 1}, on [low, high]."""
    angles = (torch.arange(degree + 1, dtype=torch.float64) + 0.5) * (math.pi / (degree + 1))
    return ((low + high) / 2 + (high - low) / 2 * angles.cos()).to(dtype)


def _transform(degree: int, dtype: torch.dtype) -> Tensor:
    """The cosine transform (n + 1, n + 1) from values at the nodes to coefficients of T_0, …, T_n."""
    count = degree + 1
    angles = (torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / count)
    matrix = torch.cos(torch.arange(count, dtype=torch.float64).unsqueeze(-1) * angles) * (2 / count)
    matrix[0] /= 2
    return matrix.to(dtype)


def _draw_function(generator: Generator) -> dict[str, Any]:
    """A smooth function of three variables that does not separate."""
    weights = torch.rand(3, generator=generator, dtype=torch.float64)
    box, degrees = ((0.0, 1.0), (-1.0, 1.0), (1.0, 3.0)), (10, 11, 12)
    return {"f": lambda p: 1 / (2 + (p * weights).sum(-1).square()), "box": box, "degrees": degrees, "tol": 1e-8}


def _miss(found: ChebyshevTucker, f: Callable[..., Tensor], box: Box) -> float:
    """The largest error at fifty points of the box, in millionths of the largest value."""
    unit = torch.rand(50, len(box), generator=Generator().manual_seed(0), dtype=torch.float64)
    low, high = unit.new_tensor(box).unbind(1)
    exact = f(low + (high - low) * unit)
    return float((found(low + (high - low) * unit) - exact).abs().max() / exact.abs().max()) / 1e-6
