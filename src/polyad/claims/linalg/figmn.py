"""Precision against covariance form of the incremental mixture, point by point, and its cost by dimension.

Half a minute. The classification sets of the paper are not at hand; Gaussian classes are drawn here.
"""

from __future__ import annotations

import hashlib
import math
import time

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.algorithms import IncrementalMixture
from polyad.claims.record import Result

MINUTES = 1
CLASSES, D = 4, 8


class CovarianceForm(IncrementalMixture):
    """The same mixture, with covariances that are inverted at every point: what the paper makes faster."""

    def learn(self, x: Tensor) -> IncrementalMixture:
        """As the precision form, at D³ a point."""
        self.covariance = getattr(self, "covariance", torch.zeros(0, self.dimension, self.dimension).double())
        for point in x:
            e = point - self.mean
            self.precision, self.logdet = torch.linalg.inv(self.covariance), torch.logdet(self.covariance)
            distance = torch.einsum("ki,kij,kj->k", e, self.precision, e)
            if not len(self) or float(distance.min()) >= self.threshold:
                self._create(point)
                self.covariance = torch.cat((self.covariance, self._spread.square().diag().unsqueeze(0)))
                continue
            posterior = torch.softmax(self.mass.log() - (distance + self.logdet) / 2, 0)
            self.mass = self.mass + posterior
            w = posterior / self.mass
            self.mean = self.mean + w.unsqueeze(1) * e
            outer = w[:, None, None] * e.unsqueeze(2) * e.unsqueeze(1)
            self.covariance = (1 - w)[:, None, None] * (self.covariance + outer)
        self.precision, self.logdet = torch.linalg.inv(self.covariance), torch.logdet(self.covariance)
        return self


def points(n: int, d: int, g: Generator) -> tuple[Tensor, Tensor]:
    """Points (n, d) of four classes with covariances of their own, and the classes."""
    centres = 1.2 * torch.randn(CLASSES, d, generator=g, dtype=torch.float64)
    shapes = torch.randn(CLASSES, d, d, generator=g, dtype=torch.float64) / math.sqrt(d)
    labels = torch.randint(0, CLASSES, (n,), generator=g)
    noise = torch.randn(n, d, generator=g, dtype=torch.float64)
    return centres[labels] + torch.einsum("nij,nj->ni", shapes[labels], noise), labels


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Both forms are the same mixture after thousands of points, and classify alike."""
    g = Generator().manual_seed(0)
    x, labels = points(4000, D, g)
    joint = torch.cat((x, torch.nn.functional.one_hot(labels, CLASSES).double()), 1)
    spread = torch.cat((x.std(0), torch.full((CLASSES,), 0.2, dtype=torch.float64)))
    mixtures = [
        kind(D + CLASSES, deviation=spread, novelty=1e-3, age=1 << 40).learn(joint[:3000])
        for kind in (IncrementalMixture, CovarianceForm)
    ]
    fast, slow = mixtures
    answers = [m.predict(x[3000:], known=range(D)).argmax(1) for m in mixtures]
    scale = slow.precision.flatten(1).norm(dim=1)
    difference = {
        "precision": float(((fast.precision - slow.precision).flatten(1).norm(dim=1) / scale).max()),
        "log-determinant": float((fast.logdet - slow.logdet).abs().max()),
        "mean": float((fast.mean - slow.mean).abs().max()),
    }
    digest = hashlib.sha256(joint.numpy().tobytes()).hexdigest()
    ratios = {d: _ratio(d, g) for d in (25, 50, 100, 200)}
    return Result(
        "after 3000 points in one pass, precisions and log-determinants updated by rank one differ from those of the "
        "covariance form by at most (relative, with equal classification)",
        max(difference.values()) if torch.equal(*answers) else math.inf, "<=", 1e-6,
        {"planted classes": digest}, 0,
        {"difference": difference, "components": len(fast),
         "accuracy": float((answers[0] == labels[3000:]).double().mean()),
         "accuracy of the Bayes rule of one Gaussian a class, in batch": _batch(x, labels),
         "time of the covariance form over that of the precision form, by dimension": ratios},
    )  # fmt: skip


def _batch(x: Tensor, labels: Tensor) -> float:
    """One Gaussian a class, fitted to the same 3000 points at once."""
    scores = []
    for label in range(CLASSES):
        members = x[:3000][labels[:3000] == label]
        normal = torch.distributions.MultivariateNormal(members.mean(0), torch.cov(members.T))
        scores.append(normal.log_prob(x[3000:]) + math.log(len(members)))
    return float((torch.stack(scores, 1).argmax(1) == labels[3000:]).double().mean())


def _ratio(d: int, g: Generator) -> float:
    """Seconds of 30 points with two components held, least of three, in alternation."""
    x = torch.randn(40, d, generator=g, dtype=torch.float64)
    spent: dict[type, list[float]] = {IncrementalMixture: [], CovarianceForm: []}
    for _ in range(3):
        for kind, seconds in spent.items():
            mixture = kind(d, deviation=1.0, novelty=0.0).learn(x[:10])
            clock = time.perf_counter()
            mixture.learn(x[10:])
            seconds.append(time.perf_counter() - clock)
    return min(spent[CovarianceForm]) / min(spent[IncrementalMixture])
