"""Incremental mixtures: precision form equals covariance form, growth, removal, prediction."""

import math

import pytest
import torch

from polyad.algorithms import IncrementalMixture
from polyad.algorithms.incremental_mixture import chi_square


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class CovarianceForm:
    """The same rules with covariances, inverted at every point; without removal."""

    def __init__(self, dimension, deviation, threshold):
        self.start, self.threshold = torch.eye(dimension).double() * deviation**2, threshold
        self.mean, self.cov, self.mass = [], [], []

    def learn(self, x):
        for point in x:
            d = [
                float((point - m) @ torch.linalg.solve(c, point - m))
                for m, c in zip(self.mean, self.cov, strict=True)
            ]
            if not d or min(d) >= self.threshold:
                self.mean.append(point)
                self.cov.append(self.start)
                self.mass.append(1.0)
                continue
            log = torch.tensor([math.log(s) - (q + float(torch.logdet(c))) / 2
                                for s, q, c in zip(self.mass, d, self.cov, strict=True)])  # fmt: skip
            for j, p in enumerate(torch.softmax(log.double(), 0).tolist()):
                self.mass[j] += p
                w, e = p / self.mass[j], point - self.mean[j]
                self.mean[j] = self.mean[j] + w * e
                self.cov[j] = (1 - w) * (self.cov[j] + w * torch.outer(e, e))


def planted(n=900, d=6, seed=0):
    centres = 8 * seeded(3, d, seed=seed + 1)
    labels = torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(seed))
    return centres[labels] + seeded(n, d, seed=seed + 2), labels


def test_the_precision_form_is_the_covariance_form_after_hundreds_of_points():
    x, _ = planted(400)
    mixture = IncrementalMixture(6, deviation=2.0, novelty=1e-6, age=10**9).learn(x)
    other = CovarianceForm(6, 2.0, mixture.threshold)
    other.learn(x)
    assert len(mixture) == len(other.mean) == 3
    for j in range(len(mixture)):
        assert torch.allclose(torch.linalg.inv(mixture.precision[j]), other.cov[j], rtol=1e-6, atol=1e-8)
        assert abs(float(mixture.logdet[j] - torch.logdet(other.cov[j]))) < 1e-6
        assert torch.allclose(mixture.mean[j], other.mean[j])


def test_one_component_is_the_weighted_mean_and_covariance():
    x = seeded(200, 4)
    mixture = IncrementalMixture(4, deviation=1.0, novelty=0.0).learn(x)
    assert len(mixture) == 1
    assert torch.allclose(mixture.mean[0], x.mean(0))
    centred = x - x.mean(0)
    expected = (centred.T @ centred + torch.eye(4)) / 200  # the first point brings the starting covariance
    assert torch.allclose(torch.linalg.inv(mixture.precision[0]), expected)
    assert torch.allclose(mixture.logdet[0], torch.logdet(expected))


def test_planted_components_are_found_in_one_pass():
    x, labels = planted()
    mixture = IncrementalMixture(6, deviation=1.0, novelty=1e-6).learn(x)
    assert len(mixture) == 3
    for label in range(3):
        assert (mixture.mean - x[labels == label].mean(0)).norm(dim=1).min() < 0.2
    assert mixture.log_density(x).mean() > mixture.log_density(x + 3).mean() + 10


def test_novelty_decides_how_many_components_there_are():
    x, _ = planted(300)
    assert len(IncrementalMixture(6, deviation=1.0, novelty=0.5, age=10**9).learn(x)) > 3


def test_spurious_components_are_removed():
    x, _ = planted(400)
    x[50] = 100.0
    kept = IncrementalMixture(6, deviation=2.0, novelty=1e-6, age=10**9).learn(x)
    left = IncrementalMixture(6, deviation=2.0, novelty=1e-6, age=20).learn(x)
    assert len(kept) == 4
    assert len(left) == 3


def test_any_variables_predict_any_others():
    x = seeded(800, 3)
    y = torch.stack((x[:, 0] - 2 * x[:, 1], x[:, 2] + 1), 1)
    joint = torch.cat((x, y + 1e-2 * seeded(800, 2, seed=3)), 1)
    mixture = IncrementalMixture(5, deviation=1.0, novelty=0.0).learn(joint)
    assert (mixture.predict(x[:50], known=[0, 1, 2]) - y[:50]).abs().max() < 0.1
    backwards = mixture.predict(torch.stack((y[:50, 0], x[:50, 0]), 1), known=[3, 0])
    assert (backwards[:, 0] - x[:50, 1]).abs().max() < 0.1


def test_one_hot_labels_make_a_classifier():
    x, labels = planted(900)
    joint = torch.cat((x, torch.nn.functional.one_hot(labels).double()), 1)
    spread = torch.cat((torch.ones(6), torch.full((3,), 0.3)))
    mixture = IncrementalMixture(9, deviation=spread, novelty=1e-6).learn(joint[:600])
    found = mixture.predict(x[600:], known=range(6)).argmax(1)
    assert (found == labels[600:]).double().mean() > 0.98


def test_precisions_stay_positive_definite_with_repeated_points():
    mixture = IncrementalMixture(3, deviation=1.0, novelty=0.0).learn(torch.ones(300, 3))
    assert torch.linalg.eigvalsh(mixture.precision[0]).min() > 0
    assert torch.isfinite(mixture.logdet).all()


@pytest.mark.parametrize(("share", "degrees", "value"), [(0.95, 1, 3.8415), (0.99, 10, 23.2093), (0.5, 100, 99.3341)])
def test_chi_square_quantiles(share, degrees, value):
    assert abs(chi_square(share, degrees) - value) < 1e-3


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: IncrementalMixture(3, deviation=0.0), "must be positive"),
        (lambda: IncrementalMixture(3, deviation=1.0, novelty=1.0), "novelty=1.0 is no probability"),
        (lambda: IncrementalMixture(3, deviation=1.0).learn(torch.ones(2, 4)), r"shape \(n, 3\)"),
        (lambda: IncrementalMixture(3, deviation=1.0).learn(torch.full((1, 3), torch.nan)), "NaN"),
        (lambda: IncrementalMixture(3, deviation=1.0).predict(torch.ones(1, 2), known=[0, 1]), "no component yet"),
        (lambda: IncrementalMixture(2, deviation=1.0).predict(torch.ones(1, 2), known=[0, 0]), "different variables"),
        (lambda: IncrementalMixture(2, deviation=1.0).predict(torch.ones(1, 2), known=[0, 1]), "not all of 0 to 1"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
