"""Least squares from a short sketch of the equations, with an error that is small in every coordinate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.algorithms.tensor_sketch import TensorSRHT
from polyad.linalg.sketch import SRHT, Gaussian, SparseSign, count_sketch, default_generator

SKETCHES = {
    "srht": SRHT.draw,
    "gaussian": Gaussian.draw,
    "sparse_sign": SparseSign.draw,
    "count_sketch": count_sketch,
}
"""The sketches by name. The first two are dense and keep the coordinate-wise guarantee, the others do not."""


def linf_rows(n: int, d: int, eps: float, delta: float = 0.1) -> int:
    """Rows 2 d log(n / delta) / eps² of a dense sketch for an error of eps / √d in every coordinate.

    The theorem has the cube of the logarithm and no constant; experiments need its first power.

    >>> linf_rows(65536, 16, 0.5)
    1715
    """
    if not (eps > 0 and 0 < delta < 1):
        raise ValueError(f"eps={eps} must be positive and delta={delta} between 0 and 1")
    return math.ceil(2 * d * math.log(n / delta) / eps**2)


@method(
    "solve",
    instead=(
        "Where the equations are sparse: sketch='sparse_sign', which was seen to keep the bound too; where unknowns "
        "are needed to more than a few digits: torch.linalg.lstsq of all equations."
    ),
    example={
        "arguments": lambda g: _draw_problem(g), "off": lambda x, **problem: _coordinate_error(x, **problem),
        "scale": ("a", "b"),
    },
    papers=(Paper("Song, Ye, Yin, Zhang", 2023, "A Nearly-Optimal Bound for Fast Regression with ℓ∞ Guarantee",
                  "arXiv:2302.00248", "linf-regression",
                  "sketch and solve with a dense sketch, which spreads the error evenly; its Kronecker form"),),
)  # fmt: skip
def sketched_lstsq(
    a: Tensor | tuple[Tensor, Tensor],
    b: Tensor,
    rows: int,
    *,
    sketch: str = "srht",
    generator: Generator | None = None,
) -> Tensor:
    """argmin_x ‖S A x − S b‖ for a (n, d), b (n,) or (n, k), and a random S of shape (rows, n); x is (d,) or (d, k).

    With a dense sketch ("srht", "gaussian") of ``linf_rows(n, d, eps)`` rows, every coordinate of x is within
    eps / √d · ‖A x* − b‖ ‖A⁺‖ of the exact solution x*: √d better than what the error of the whole vector promises.
    No sparse sketch can promise this ("sparse_sign", "count_sketch" are there for contrast, and for when the
    residual alone matters). A pair of matrices stands for their Kronecker product, which is never formed; b then has
    the product of their rows, and the sketch is a ``TensorSRHT``.

    Rank-deficient equations get the solution of least norm. float32 and float64 are kept; gradients do not flow.
    Cost: n d log n for "srht", and rows d² to solve.

    Raises ValueError for fewer rows than unknowns, sizes that do not match, unknown sketches, NaN and infinities.

    >>> a = torch.arange(2000.0).remainder(7).reshape(500, 4).cos()
    >>> x = sketched_lstsq(a, a @ torch.tensor([1.0, 2.0, 3.0, 4.0]), rows=50)
    >>> [round(v, 3) for v in x.tolist()]
    [1.0, 2.0, 3.0, 4.0]
    """
    factors = a if isinstance(a, tuple) else (a,)
    for i, factor in enumerate(factors):
        name = "a" if len(factors) == 1 else f"a[{i}]"
        _check.finite(name, _check.dimensions(name, _check.floating(name, factor), 2))
    _check.finite("b", _check.floating("b", b))
    n, d = math.prod(f.shape[-2] for f in factors), math.prod(f.shape[-1] for f in factors)
    _refuse(factors, b, rows, n, d, sketch)
    target = (b if b.ndim == 2 else b.unsqueeze(1)).detach()
    scaled, scales = zip(*(_unit(f.detach()) for f in factors), strict=True)
    target, height = _unit(target)
    if len(scaled) == 2:
        if sketch != "srht":
            raise ValueError(f"sketch={sketch!r} has no form for Kronecker products; choose sketch='srht'")
        tensor = TensorSRHT.draw(
            rows, (scaled[0].shape[0], scaled[1].shape[0]), generator=default_generator(generator)
        )
        left, right = tensor.apply(*scaled), tensor.apply_dense(target)
    else:
        drawn_sketch = SKETCHES[sketch](rows, n, generator=default_generator(generator))
        left, right = drawn_sketch.apply(scaled[0]), drawn_sketch.apply(target)
    x = _solve(left, right) * (height / math.prod(scales))
    return x if b.ndim == 2 else x.squeeze(1)


def _solve(left: Tensor, right: Tensor) -> Tensor:
    """Least squares by QR, or by singular values where the triangle shows that columns depend on each other."""
    q, r = torch.linalg.qr(left)
    pivots = r.diagonal().abs()
    if pivots.min() > 1e3 * torch.finfo(r.dtype).eps * pivots.max():
        return torch.linalg.solve_triangular(r, q.mT @ right, upper=True)
    return torch.linalg.lstsq(r, q.mT @ right, driver="gelsd").solution


def _unit(x: Tensor) -> tuple[Tensor, float]:
    """x over its largest entry, so that no sum over- or underflows, and that entry."""
    largest = float(x.abs().max()) if x.numel() else 0.0
    return (x / largest, largest) if largest > 0 else (x, 1.0)


def _refuse(factors: tuple[Tensor, ...], b: Tensor, rows: int, n: int, d: int, sketch: str) -> None:
    if len(factors) not in (1, 2) or any(f.ndim != 2 for f in factors):
        raise ValueError(f"a must be a matrix or a pair of matrices, not {[tuple(f.shape) for f in factors]}")
    if b.ndim not in (1, 2) or b.shape[0] != n:
        raise ValueError(f"b of shape {tuple(b.shape)} must have {n} rows, as a has")
    if len({f.dtype for f in (*factors, b)}) > 1 or b.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"a and b have dtypes {[f.dtype for f in (*factors, b)]}; give both float32 or both float64")
    if sketch not in SKETCHES:
        raise ValueError(f"sketch={sketch!r} is unknown; choose one of {', '.join(SKETCHES)}")
    if rows < d:
        raise ValueError(f"rows={rows} is fewer than the {d} unknowns; give more, such as linf_rows(n, d, eps)")


def _draw_problem(generator: Generator) -> dict[str, Any]:
    """Equations that four unknowns nearly solve, and the rows for an error of a half."""
    a = torch.randn(2048, 4, generator=generator, dtype=torch.float64)
    b = a.sum(1) + 0.05 * torch.randn(2048, generator=generator, dtype=torch.float64)
    return {"a": a, "b": b, "rows": linf_rows(2048, 4, 0.5)}


def _coordinate_error(x: Tensor, a: Tensor, b: Tensor, rows: int) -> float:  # noqa: ARG001
    """The largest error of a coordinate over its bound, eps / √d · ‖A x* − b‖ ‖A⁺‖ with eps a half."""
    (a, size), (b, height) = _unit(a.double()), _unit(b.double())
    best = torch.linalg.lstsq(a, b).solution
    bound = 0.5 / math.sqrt(a.shape[1]) * (a @ best - b).norm() / torch.linalg.svdvals(a)[-1]
    return float((x.double() * size / height - best).abs().max() / bound)
