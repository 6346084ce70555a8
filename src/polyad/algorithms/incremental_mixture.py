"""Gaussian mixtures learned from one pass over a stream, by rank-one updates of precision matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.algorithms.stream import Stream


@method(
    "stream",
    name="incremental_mixture",
    example={
        "arguments": lambda g: _draw_clusters(g),
        "feed": lambda mixture, rows: mixture.learn(rows),
        "read": lambda mixture: (mixture.mass, mixture.mean, mixture.precision, mixture.logdet),
        "off": lambda mixture, rows, deviation, **_: _imbalance(mixture, rows, deviation),
        "scale": (("rows", "deviation"),),
    },
    papers=(
        Paper("Pinto, Engel", 2015, "A Fast Incremental Gaussian Mixture Model", "doi:10.1371/journal.pone.0139931",
              "figmn", "precision matrices and determinants updated by rank one, D² a point in place of D³"),
        Paper("Pinto, Engel", 2017, "Scalable and Incremental Learning of Gaussian Mixture Models",
              "arXiv:1701.03940", "igmn-scalable", "one rank-one update a point, the chi-square test, removal"),
    ),
)  # fmt: skip
class IncrementalMixture(Stream):
    """A mixture of full-covariance Gaussians over D variables that grows and learns point by point.

    A point whose squared Mahalanobis distance to every component exceeds the chi-square quantile at 1 − ``novelty``
    starts a component there with covariance diag(``deviation``²); otherwise each component takes it in with its
    posterior p as weight: ω = p / Σp, μ ← μ + ω e, C ← (1 − ω)(C + ω e eᵀ), e = x − μ. Kept are not C but its inverse
    (Sherman-Morrison) and log-determinant (the matrix determinant lemma), both from C⁻¹e, which the distance has
    needed already. Components older than ``age`` points with less than ``weight`` of posterior are removed.

    ``predict`` gives any variables from any others: regression, and classification with one-hot labels as variables.
    ``deviation`` is a number or (D,): a share, such as 0.5, of the standard deviations that are expected.

    Departures: the covariance follows the exact weighted recursion; the first paper's subtracts Δμ Δμᵀ where this one
    adds, and can lose definiteness. Computed in float64. Cost: K D² a point for K components. Not differentiable.

    Raises ValueError for points of another width, deviations that are not positive, NaN and infinities.

    >>> x = torch.arange(-20.0, 20.0).div(10)[torch.arange(40) * 7 % 40]
    >>> mixture = IncrementalMixture(2, deviation=1.0).learn(torch.stack((x, 3 * x), 1))
    >>> mixture.predict(torch.tensor([[1.0]]), known=[0]).round()
    tensor([[3.]], dtype=torch.float64)
    """

    def __init__(
        self, dimension: int, *, deviation: float | Tensor, novelty: float = 0.05, age: int = 5, weight: float = 3.0
    ) -> None:
        _check.rank(dimension, 1 << 20, "what fits into memory", "dimension")
        spread = torch.as_tensor(deviation, dtype=torch.float64).expand(dimension)
        if not bool((spread > 0).all()) or not bool(torch.isfinite(spread).all()):
            raise ValueError(f"deviation={deviation} must be positive; leave variables that never vary out")
        if not 0 <= novelty < 1:
            raise ValueError(f"novelty={novelty} is no probability below 1; 0 keeps to one component, 0.05 is common")
        self.dimension, self.age, self.weight = dimension, age, weight
        self.threshold = chi_square(1 - novelty, dimension)
        self._spread = spread
        self.mean = spread.new_zeros(0, dimension)
        self.precision = spread.new_zeros(0, dimension, dimension)
        self.logdet = spread.new_zeros(0)  # of the covariances
        self.mass = spread.new_zeros(0)  # posteriors so far
        self._ages = spread.new_zeros(0)

    def __len__(self) -> int:
        return len(self.mean)

    def learn(self, x: Tensor) -> IncrementalMixture:
        """Take in the points x (n, D) in their order; returns itself."""
        x = self._points("x", x, self.dimension)
        for point in x:
            e = point - self.mean
            product = (self.precision @ e.unsqueeze(2)).squeeze(2)
            distance = (e * product).sum(1)
            if not len(self) or float(distance.min()) >= self.threshold:
                self._create(point)
            else:
                self._update(e, product, distance)
        return self

    def _create(self, point: Tensor) -> None:
        self.mean = torch.cat((self.mean, point.unsqueeze(0)))
        self.precision = torch.cat((self.precision, self._spread.pow(-2).diag().unsqueeze(0)))
        self.logdet = torch.cat((self.logdet, 2 * self._spread.log().sum().reshape(1)))
        self.mass, self._ages = (torch.cat((values, values.new_ones(1))) for values in (self.mass, self._ages))

    def _update(self, e: Tensor, product: Tensor, distance: Tensor) -> None:
        posterior = torch.softmax(self.mass.log() - (distance + self.logdet) / 2, 0)
        self.mass, self._ages = self.mass + posterior, self._ages + 1
        w = posterior / self.mass
        self.mean = self.mean + w.unsqueeze(1) * e
        gain = (w / (1 + w * distance)).sqrt().unsqueeze(1) * product
        self.precision = torch.baddbmm(self.precision, gain.unsqueeze(2), gain.unsqueeze(1), alpha=-1)
        self.precision /= (1 - w)[:, None, None]
        self.logdet = self.logdet + self.dimension * torch.log1p(-w) + torch.log1p(w * distance)
        spurious = (self._ages > self.age) & (self.mass < self.weight)
        if bool(spurious.any()) and not bool(spurious.all()):
            for name in ("mean", "precision", "logdet", "mass", "_ages"):
                setattr(self, name, getattr(self, name)[~spurious])

    def log_density(self, x: Tensor) -> Tensor:
        """The log-density (n,) of the mixture at x (n, D)."""
        x = self._points("x", self._check_learned(x), self.dimension)
        return torch.logsumexp(self._log_joint(x, self.mean, self.precision, self.logdet), 1)

    def predict(self, x: Tensor, known: Sequence[int]) -> Tensor:
        """The conditional mean (n, D − k) of the other variables, in their order, given x (n, k) for ``known``."""
        conditions = [int(i) for i in known]
        if len(set(conditions)) != len(conditions) or not set(conditions) < set(range(self.dimension)):
            raise ValueError(
                f"known={list(known)} must be different variables, some but not all of 0 to {self.dimension - 1}"
            )
        x = self._points("x", self._check_learned(x), len(conditions))
        rest = [i for i in range(self.dimension) if i not in set(conditions)]
        inner = self.precision[:, rest][:, :, rest]
        cross = self.precision[:, rest][:, :, conditions]
        factor = torch.linalg.cholesky(inner)
        slope = torch.cholesky_solve(cross, factor)  # minus the regression of the rest on these
        marginal = self.precision[:, conditions][:, :, conditions] - cross.mT @ slope
        logdet = self.logdet + 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        share = torch.softmax(self._log_joint(x, self.mean[:, conditions], marginal, logdet), 1)
        centred = x.unsqueeze(1) - self.mean[:, conditions]
        each = self.mean[:, rest] - torch.einsum("krc,nkc->nkr", slope, centred)
        return (share.unsqueeze(2) * each).sum(1)

    def _log_joint(self, x: Tensor, mean: Tensor, precision: Tensor, logdet: Tensor) -> Tensor:
        e = x.unsqueeze(1) - mean
        distance = torch.einsum("nki,kij,nkj->nk", e, precision, e)
        prior = (self.mass / self.mass.sum()).log()
        return prior - (distance + logdet + x.shape[1] * math.log(2 * math.pi)) / 2

    def _check_learned(self, x: Tensor) -> Tensor:
        if not len(self):
            raise ValueError("the mixture has no component yet; call learn(x) first")
        return x

    def _points(self, name: str, x: Tensor, width: int) -> Tensor:
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(f"{name} of shape {tuple(x.shape)} must have shape (n, {width})")
        return _check.finite(name, _check.floating(name, x)).detach().double()


def chi_square(share: float, degrees: int) -> float:
    """The quantile of the chi-square distribution, by bisection of the incomplete gamma function.

    >>> round(chi_square(0.95, 2), 3)
    5.991
    """
    if share >= 1:
        return math.inf
    shape, low, high = torch.tensor(degrees / 2, dtype=torch.float64), 0.0, 10.0 * degrees + 100.0
    for _ in range(80):
        middle = (low + high) / 2
        below = float(torch.special.gammainc(shape, torch.tensor(middle / 2, dtype=torch.float64))) < share
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def _draw_clusters(generator: Generator) -> dict[str, Any]:
    """Points of two clouds in turn; no component is removed."""
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    x[::2, 0] += 8
    return {"dimension": 4, "deviation": 1.5, "age": 1 << 40, "rows": x}


def _imbalance(mixture: tuple[Tensor, ...], rows: Tensor, deviation: float) -> float:
    """The distance of the components' masses, means and second moments from the points', in millionths.

    Each component starts with a mass of one and the second moment of ``deviation`` beside its point's.
    """
    mass, mean, precision, logdet = mixture
    x, mean, precision = rows.double() / deviation, mean / deviation, precision * deviation**2
    moments = torch.linalg.inv(precision) + mean.unsqueeze(2) * mean.unsqueeze(1)
    expected = x.T @ x + len(mass) * torch.eye(x.shape[1], dtype=x.dtype)
    determinants = 2 * x.shape[1] * math.log(deviation) - torch.linalg.slogdet(precision).logabsdet
    lacking = (
        mass.sum() / len(x) - 1, (mass @ mean - x.sum(0)).norm() / x.norm(), (logdet - determinants).abs().max(),
        (torch.einsum("k,kij->ij", mass, moments) - expected).norm() / expected.norm(),
    )  # fmt: skip
    return max(abs(float(part)) for part in lacking) / 1e-6
