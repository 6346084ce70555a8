"""The tensor train of a function of indices, from a few of its values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.trains._cross_sweeps import Cross
from polyad.decompose.trains._evaluations import Evaluations, EvaluationsExhaustedError
from polyad.formats import TensorTrain

_TESTS = 1024  # random entries that estimate the error


@method(
    "solve",
    makes=TensorTrain,
    example={
        "arguments": lambda g: _draw_function(g),
        "off": lambda train, function, shape, **_: _miss(train, function, shape),
        "scale": ("function",),
    },
    papers=(
        Paper(
            "Oseledets, Tyrtyshnikov",
            2010,
            "TT-cross approximation for multidimensional arrays",
            "doi:10.1016/j.laa.2009.07.024",
        ),
        Paper(
            "Mikhalev, Oseledets",
            2018,
            "Rectangular maximum-volume submatrices and their applications",
            "doi:10.1016/j.laa.2017.10.014",
            adds="rows beyond the square submatrix, by which ranks grow",
        ),
    ),
)
def tt_cross(
    function: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    rank: int | None = None,
    *,
    tol: float = 1e-6,
    max_evaluations: int | None = None,
    max_iter: int = 40,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> TensorTrain:
    """A tensor train that interpolates a function on rows and columns of its unfoldings that span large volumes.

    ``function`` takes an index (N, d) of int64 and gives N numbers in float32 or float64; the train has their dtype.
    It is asked once for each entry. Sweeps run to and fro: at each mode the function is evaluated at all
    combinations of left indices, the mode and right indices; a singular value decomposition says how many of these
    columns count, and where all do, two more rows than columns are kept; a sweep also takes in the random entry on
    which the last train was worst. So ranks grow until ``tol`` is met or ``rank`` is reached.

    The sweeps stop once half of ``tol`` is above the relative error on 1,024 random entries, which are evaluated too,
    and above what the last sweep moved of the train; then 1,024 others are asked to confirm it. This is an estimate:
    what neither these entries nor the crosses meet stays unseen. Where ``max_iter`` sweeps or ``max_evaluations`` end
    sooner, a warning says so and the best train so far is given.
    ``callback(sweep, max_iter, {"error": …, "evaluations": …, "rank": …})`` follows each sweep. A sweep costs
    Σ r I r' evaluations.

    Raises ValueError where the function's values are not finite or not one for each row.

    >>> fit = tt_cross(lambda index: 1 / (1 + index.double().sum(1)), (16,) * 6, tol=1e-6)
    >>> index = torch.tensor([[3, 1, 4, 1, 5, 9]])
    >>> round(float(fit.entries(index)), 5)
    0.04167
    """
    _check.iterations(max_iter, least=1)
    shape = _check_arguments(tuple(shape), rank, tol)
    generator = generator or torch.Generator().manual_seed(0)
    ask = Evaluations(function, shape, max_evaluations, torch.float64)
    tests = _Tests(ask, generator)
    try:
        tests.more()
    except EvaluationsExhaustedError:
        raise ValueError(f"max_evaluations={max_evaluations} is too few; {_TESTS} alone estimate the error") from None
    cross = Cross(ask, tests.index[tests.truth.abs().argsort(descending=True)[:2]], rank, tol)
    best, error, sweeps = _sweep_to_tolerance(cross, tests, tol, max_iter, callback)
    if best is None:
        raise ValueError(f"max_evaluations={max_evaluations} is too few for one sweep; {ask.count} were made")
    if error > tol:
        warnings.warn(
            f"tt_cross stopped after {sweeps} sweeps and {ask.count} evaluations at an error of {error:.3g}, "
            f"not tol={tol}; raise rank, max_iter or max_evaluations",
            stacklevel=2,
        )
    return best.to(ask.dtype)


def _check_arguments(shape: tuple[int, ...], rank: int | None, tol: float) -> tuple[int, ...]:
    if not shape or min(shape) < 1:
        raise ValueError(f"shape={shape} must give at least one mode, each of one entry or more")
    if rank is not None:
        if isinstance(rank, bool) or not hasattr(rank, "__index__"):
            raise TypeError(
                f"rank={rank!r} is no whole number; give the largest rank that any bond may have, or None"
            )
        if rank < 1:
            raise ValueError(f"rank={rank} is below 1; give the largest rank that a bond may have, or None")
    _check.tolerance(tol)
    return shape


def _sweep_to_tolerance(
    cross: Cross,
    tests: _Tests,
    tol: float,
    max_iter: int,
    callback: Callback | None,
) -> tuple[TensorTrain | None, float, int]:
    """Sweep until ``tol`` is met; the best train, or None, its error, and the number of sweeps."""
    best, last, error, sweep = None, None, float("inf"), 0
    try:
        for sweep in range(max_iter):
            train = cross.sweep()
            off, relative = tests.error(train)
            change = _relative_change(train, last)
            last = train
            if max(relative, change) <= tol / 2:  # these entries steered the crosses: new ones confirm it
                tests.more()
                off, relative = tests.error(train)
            if best is None or relative < error:
                best, error = train, relative
            if callback is not None:
                values = {"error": relative, "evaluations": cross.ask.count, "rank": max(train.rank, default=1)}
                callback(sweep, max_iter, values)
            if max(relative, change) <= tol / 2:
                break
            cross.add(tests.index[off.argmax()][None])
    except EvaluationsExhaustedError:
        pass
    return best, error, sweep + 1


class _Tests:
    """Random entries whose true values are known."""

    def __init__(self, ask: Evaluations, generator: Generator) -> None:
        self.ask, self.generator = ask, generator
        self.index = torch.zeros(0, len(ask.shape), dtype=torch.int64)
        self.truth = torch.zeros(0, dtype=torch.float64)

    def more(self) -> None:
        fresh = [torch.randint(0, n, (_TESTS,), generator=self.generator) for n in self.ask.shape]
        index = torch.stack(fresh, 1)
        self.truth = torch.cat((self.truth, self.ask(index)))
        self.index = torch.cat((self.index, index))

    def error(self, train: TensorTrain) -> tuple[Tensor, float]:
        """The error of each entry, and the relative error of the entries drawn last."""
        off = (train.entries(self.index) - self.truth).abs()
        size = float(self.truth[-_TESTS:].norm())
        return off, float(off[-_TESTS:].norm()) / size if size else float(train.norm())


def _relative_change(train: TensorTrain, last: TensorTrain | None) -> float:
    """The change of the train by a sweep, relative to its norm: rare large errors show here first."""
    if last is None or not train.rank:  # one core is exact at once
        return float("inf") if train.rank else 0.0
    size = float(train.norm())
    difference = train - last
    assert isinstance(difference, TensorTrain)  # of two trains with bonds
    return float(difference.norm()) / size if size else float(last.norm() > 0)


def _draw_function(generator: Generator) -> dict[str, Any]:
    """The function 1 / (1 + w · index) for random weights, whose ranks are low at any tolerance."""
    weights = torch.rand(4, generator=generator, dtype=torch.float64)
    function: Callable[[Tensor], Tensor] = lambda index: 1 / (1 + index.double() @ weights)  # noqa: E731
    return {"function": function, "shape": (6, 5, 7, 4), "rank": 8, "tol": 1e-6}


def _miss(train: TensorTrain, function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> float:
    """The relative error over all entries, in units of the tolerance of the example."""
    exact = function(torch.cartesian_prod(*[torch.arange(n) for n in shape])).view(shape)
    size = exact.abs().max()
    return float((train.to_dense() / size - exact / size).norm() / (exact / size).norm()) / 1e-6
