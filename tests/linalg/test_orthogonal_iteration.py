"""Leading eigenvectors of many small matrices at once, against LAPACK's one by one."""

from __future__ import annotations

import pytest
import torch

from polyad.linalg import left_singular
from polyad.linalg.orthogonal_iteration import orthogonal_iteration


def gram(spectrum, count=64, seed=0):
    """Symmetric matrices of random eigenvectors with these eigenvalues, (count, n, n) in float64."""
    n, generator = len(spectrum), torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(count, n, n, generator=generator, dtype=torch.float64))[0]
    return (q * torch.tensor(spectrum, dtype=torch.float64)) @ q.mT


SPECTRA = {
    "falling": [2.0**-i for i in range(16)],
    "a gap": [9.0, 5.0, 3.0, 2.0] + [0.1] * 12,
    "hardly a gap": [1.0, 1.0, 1.0, 0.99] + [0.98] * 12,
    "repeated across the rank": [4.0, 2.0, 1.0, 1.0, 1.0, 1.0] + [0.5] * 10,
    "of lower rank": [1.0, 0.5] + [0.0] * 14,
    "over twelve decades": [10.0**-i for i in range(16)],
    "zero": [0.0] * 16,
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("scale", [1.0, 1e-60, 1e60])
def test_the_subspace_holds_what_the_best_holds(name, scale):
    matrix = gram(SPECTRA[name]) * scale
    found = orthogonal_iteration(matrix, 4)
    if found is None:  # given up: left to LAPACK
        assert name in ("hardly a gap", "of lower rank", "over twelve decades", "zero")
        return
    vectors, values = found
    assert torch.allclose(vectors.mT @ vectors, torch.eye(4).double().expand(64, -1, -1), atol=1e-13)
    held = (vectors * (matrix @ vectors)).sum((-2, -1))
    best, total = scale * sum(SPECTRA[name][:4]), scale * sum(SPECTRA[name])
    assert (best - held <= 1e-6 * (total - best) + 1e-13 * total).all()
    assert torch.allclose(values.sum(-1), held, rtol=1e-12)
    assert (values.diff(dim=-1) <= 1e-13 * total).all()


def test_stragglers_are_solved_whole():
    matrix = torch.cat((gram(SPECTRA["a gap"]), gram(SPECTRA["hardly a gap"], 5), gram(SPECTRA["zero"], 1)))
    found = orthogonal_iteration(matrix, 4)
    assert found is not None
    exact = torch.linalg.eigvalsh(matrix).flip(-1)[:, :4]
    assert torch.allclose(found[1], exact, rtol=1e-10, atol=1e-13)


def test_left_singular_of_many_is_that_of_each():
    x = torch.randn(40, 12, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x * torch.tensor([9.0, 5.0, 3.0] + [0.2] * 9).double()[:, None]
    u, s = left_singular(x, 3)
    one = [left_singular(part, 3) for part in x]
    assert torch.allclose(u, torch.stack([u for u, _ in one]), atol=1e-3)
    assert torch.allclose(s, torch.stack([s for _, s in one]), rtol=1e-7)
