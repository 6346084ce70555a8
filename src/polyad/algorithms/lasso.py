"""Sparse linear regression by the lasso."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method


@method(
    "solve",
    example={
        "arguments": lambda g: _draw_problem(g), "off": lambda w, **problem: _violation(w, **problem),
        "scale": ("x", ("y", "noise")),
    },
    papers=(
        Paper("Tibshirani", 1996, "Regression shrinkage and selection via the lasso",
              "doi:10.1111/j.2517-6161.1996.tb02080.x"),
        Paper("Beck, Teboulle", 2009, "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems",
              "doi:10.1137/080716542"),
        Paper("Chandrasekaran, Meka, Stavropoulos", 2025, "Sparse Linear Regression is Easy on Random Supports",
              "arXiv:2511.06211", "random-support-slr",
              "checked only: which supports the plain lasso finds easy; its search for a preconditioner is not here"),
    ),
)  # fmt: skip
def lasso(
    x: Tensor, y: Tensor, *, noise: float, max_iter: int = 2000, stop: float = 1e-6
) -> Tensor:  # fmt: skip
    """w (d,) or (d, k) minimising ‖X w − y‖² / 2N + λ Σ ‖X_j‖ |w_j| / √N, for x (N, d) and y (N,) or (N, k).

    λ = ``noise`` √(2 log d / N), with ``noise`` the standard deviation of the noise in y: then the prediction error
    is about noise ‖w*‖₁ √(log d / N) for any design with columns of norm √N, however nearly these are dependent.
    So the lasso is in trouble only where ‖w*‖₁ is large while X w* is not: where large weights cancel. A support that
    is chosen at random hardly ever holds columns that cancel; one that is chosen by an adversary does. (The paper
    finds a preconditioner that removes what trouble is left, for any design; that is not built here.)

    Accelerated proximal gradients with restarts, until the change of w is below ``stop`` relative to w. float32 and
    float64 are kept. Not differentiable. Cost: 4 N d k an iteration.

    Raises ValueError for sizes that do not match, negative noise, NaN and infinities.

    >>> x = torch.eye(4) * 2
    >>> [round(v, 1) for v in lasso(x, torch.tensor([2.0, 0.1, 0.0, -4.0]), noise=0.5).tolist()]
    [0.6, 0.0, 0.0, -1.6]
    """
    _check.iterations(max_iter, stop)
    for name, t in (("x", x), ("y", y)):
        _check.finite(name, _check.floating(name, t))
    if x.dtype != y.dtype or x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x has dtype {x.dtype} and y {y.dtype}; give both in float32 or both in float64")
    if x.ndim != 2 or not x.numel() or y.ndim not in (1, 2) or len(y) != len(x):
        raise ValueError(f"x of shape {tuple(x.shape)} must be (N, d) and y of shape {tuple(y.shape)} (N,) or (N, k)")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise={noise} is a standard deviation; give a number from 0")
    n, d = x.shape
    norms = _norms(x.detach()) / math.sqrt(n)
    present = norms > 0
    design = x.detach() / torch.where(present, norms, 1)
    scale = y.detach().abs().max()
    if scale == 0 or not bool(present.any()):
        return torch.zeros_like(x[0].unsqueeze(-1).expand(d, y.shape[-1]) if y.ndim == 2 else x[0])
    target = (y if y.ndim == 2 else y.unsqueeze(1)).detach() / scale
    penalty = noise / float(scale) * math.sqrt(2 * math.log(max(d, 2)) / n)
    w = _fista(design, target, penalty, max_iter, stop)
    w = w * (scale / torch.where(present, norms, 1)).unsqueeze(1) * present.unsqueeze(1)
    return w if y.ndim == 2 else w.squeeze(1)


def _norms(x: Tensor) -> Tensor:
    largest = x.abs().amax(0)
    return torch.linalg.vector_norm(x / torch.where(largest > 0, largest, 1), dim=0) * largest


def _fista(x: Tensor, y: Tensor, penalty: float, max_iter: int, stop: float) -> Tensor:
    """Accelerated soft thresholding; momentum restarts where it points uphill."""
    n, d = x.shape
    step = n / float(torch.linalg.matrix_norm(x, 2)) ** 2
    w = x.new_zeros(d, y.shape[1])
    ahead, pace = w, 1.0
    for _ in range(max_iter):
        moved = ahead - step / n * (x.T @ (x @ ahead - y))
        new = moved.sign() * (moved.abs() - step * penalty).clamp(min=0)
        change = new - w
        if float(((ahead - new) * change).sum()) > 0:
            pace = 1.0
        faster = (1 + math.sqrt(1 + 4 * pace * pace)) / 2
        w, ahead, pace = new, new + (pace - 1) / faster * change, faster
        if float(change.norm()) <= stop * float(new.norm()):
            break
    return w


def _draw_problem(generator: Generator) -> dict[str, Any]:
    """A problem of sixty equations and three weights that are not zero."""
    x = torch.randn(60, 20, generator=generator, dtype=torch.float64)
    y = x[:, :3] @ x.new_tensor([1.0, -2.0, 3.0]) + 0.1 * torch.randn(60, generator=generator, dtype=torch.float64)
    return {"x": x, "y": y, "noise": 0.1}


def _violation(w: Tensor, x: Tensor, y: Tensor, noise: float) -> float:
    """The distance of the slopes from the optimality conditions, in hundredths of the penalty."""
    x, y, w = x.double(), y.double(), w.double()
    level = noise * math.sqrt(2 * math.log(x.shape[1]) / len(x))
    slope = x.T @ (y - x @ w) / len(x) / (_norms(x) / math.sqrt(len(x)))
    off = torch.where(w == 0, (slope.abs() - level).clamp(min=0), (slope - level * w.sign()).abs())
    return float(off.max()) / (0.01 * level)
