"""Alternating least squares for Hadamard and other low-rank forms, on planted matrices. About a minute on one core.

The claim is about its solvers. Its adapters are fitted to planted changes of a layer beside a LoRA of at least
as many numbers: ``adapters`` holds the errors, of a change of low rank, of each form's own structure, and of none.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.adapters import LoHa, LoKH, LoKr, LoRA
from polyad.claims._data_hash import sha
from polyad.claims._planted_changes import fit_adapter
from polyad.claims.record import Result
from polyad.decompose import hadamard_als, khatri_rao_als, kronecker_als, masked_als
from polyad.formats import Format, Hadamard, KhatriRao, Kronecker, LowRank

MINUTES = 1
SIZES = ((60, 50, 3), (60, 50, 4), (120, 100, 4), (120, 100, 5))
SEEDS = (0, 1, 2)


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def planted_product(n: int, m: int, r: int, seed: int) -> Hadamard:
    """A product, entry by entry, of two normal matrices of rank r: of rank r² almost surely."""
    generator = Generator().manual_seed(seed)
    lefts = (_normal(generator, n, r), _normal(generator, n, r))
    return Hadamard(lefts, (_normal(generator, r, m), _normal(generator, r, m)))


def _error(result: Format, x: Tensor, where: Tensor | None = None) -> float:
    rest = result.to_dense() - x
    return float(rest.norm() / x.norm()) if where is None else float(rest[where].norm() / x[where].norm())


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The largest ratio of the Hadamard form's error to that of the truncated SVD of as many parameters."""
    runs = []
    matrices: list[torch.Tensor] = []
    for (n, m, r), seed in itertools.product(SIZES, SEEDS):
        truth = planted_product(n, m, r, seed)
        x = truth.to_dense()
        matrices.append(x)
        values = torch.linalg.svdvals(x)
        best = float(values[2 * r :].norm() / values.norm())
        errors: list[float] = []
        product = hadamard_als(x, r, callback=lambda _sweep, _of, said, to=errors: to.append(said["error"]))
        runs.append({
            "shape": [n, m], "rank": r, "seed": seed, "Hadamard": _error(product, x), "svd": best,
            "rank found": int(torch.linalg.matrix_rank(product.to_dense())), "largest rise": _rise(errors),
        })  # fmt: skip
    masked = _held_out()
    worst = max(run["Hadamard"] / run["svd"] for run in runs)
    exact = sum(run["Hadamard"] < 1e-6 for run in runs)
    return Result(
        "on matrices that are a product, entry by entry, of two of rank r, the Hadamard form fitted by alternating "
        "least squares has a lower error than the truncated SVD of the same number of parameters (rank 2 r); largest "
        "ratio of the two errors",
        worst, "<=", 1.0, {"planted matrices": sha(matrices)}, 0,
        {"planted factors found exactly": f"{exact} of {len(runs)}", "runs": runs, "with missing entries": masked,
         "adapters": _adapter_errors()},
    )  # fmt: skip


def _adapter_errors() -> dict[str, dict[str, dict[str, float]]]:
    """Errors of the adapters, relative to the change asked for, at the counts that are given with them."""
    g = Generator().manual_seed(11)
    weight = _normal(g, 48, 48).float()
    changes = {
        "of rank 4": LowRank(_normal(g, 48, 4), _normal(g, 4, 48)).to_dense(),
        "a Hadamard product": planted_product(48, 48, 2, 11).to_dense(),
        "a Kronecker product": Kronecker(_normal(g, 1, 6, 6), _normal(g, 1, 8, 8)).to_dense(),
        "a Khatri-Rao product": KhatriRao(_normal(g, 1, 6, 48), _normal(g, 1, 8, 48)).to_dense(),
        "of no structure": _normal(g, 48, 48),
    }
    methods: dict[str, tuple[Any, dict[str, Any]]] = {
        "LoRA": (LoRA, {"rank": 7}), "LoHa": (LoHa, {"rank": 3}), "LoKr": (LoKr, {"factor": 6}),
        "LoKH": (LoKH, {"first": 6}),
    }  # fmt: skip
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for what, change in changes.items():
        target = weight + 0.5 * change.float() / change.float().std()
        errors[what] = {
            name: fit_adapter(weight, target, kind, **arguments) for name, (kind, arguments) in methods.items()
        }
    return errors


def _rise(errors: list[float]) -> float:
    """The largest rise of the error from one sweep to the next, relative; negative where it only falls."""
    above = [pair for pair in itertools.pairwise(errors) if pair[1] > 1e-12]
    return max((after / before - 1 for before, after in above), default=-1.0)


def _held_out() -> dict[str, dict[str, float]]:
    """Errors over entries that each solver has not seen, and the largest rise of its error over those seen."""
    g = Generator().manual_seed(7)
    cases: dict[str, tuple[Any, Format, int, float, dict[str, Any]]] = {
        "low rank": (masked_als, LowRank(_normal(g, 100, 4), _normal(g, 4, 80)), 4, 0.3, {}),
        "Kronecker": (kronecker_als, Kronecker(_normal(g, 1, 10, 8), _normal(g, 1, 10, 10)), 1, 0.3,
                      {"shape_of_first": (10, 8)}),
        "Khatri-Rao": (khatri_rao_als, KhatriRao(_normal(g, 1, 10, 60), _normal(g, 1, 12, 60)), 1, 0.5,
                       {"rows_of_first": 10}),
        "Hadamard": (hadamard_als, planted_product(100, 80, 2, 7), 2, 0.5, {}),
    }  # fmt: skip
    figures = {}
    for name, (solve, truth, rank, share, arguments) in cases.items():
        x = truth.to_dense()
        visible = torch.rand(x.shape, generator=g) < share
        errors: list[float] = []
        result = solve(
            x.where(visible, torch.nan), rank, mask=visible, **arguments,
            callback=lambda _sweep, _of, said, to=errors: to.append(said["error"]),
        )  # fmt: skip
        figures[name] = {
            "share seen": share,
            "error, unseen": _error(result, x, ~visible),
            "largest rise": _rise(errors),
        }
    return figures
