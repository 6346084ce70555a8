"""The top eigenvector from one pass: light rows, heavy rows, both; and what goes wrong without them."""

import pytest
import torch

from polyad.algorithms import StreamingEigenvector


def instance(kind, d=60, n=6000, gap=4.0, seed=0):
    """Rows in random order whose second moment has σ₁² = gap σ₂², with the top direction in many rows or in two."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, d, generator=g, dtype=torch.float64)
    noise /= torch.linalg.matrix_norm(noise, 2)
    top = torch.nn.functional.normalize(torch.randn(d, generator=g, dtype=torch.float64), dim=0)
    if kind == "light":
        weights = torch.randn(n, generator=g, dtype=torch.float64)
        rows = noise + torch.outer(weights / weights.norm() * gap**0.5, top)
    else:
        rows = torch.cat((noise, top.expand(2, d) * (gap / 2) ** 0.5))
    return rows[torch.randperm(len(rows), generator=g)]


def run(rows, batch=37, **options):
    stream = StreamingEigenvector(rows.shape[1], **options)
    for part in rows.split(batch):
        stream.update(part)
    return stream


def correlation(stream, rows):
    top = torch.linalg.svd(rows, full_matrices=False).Vh[0]
    return float((stream.vector() @ top).square())


@pytest.mark.parametrize("kind", ["light", "heavy"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch", [20, 10_000])
def test_one_pass_finds_the_top_eigenvector(kind, seed, batch):
    rows = instance(kind, seed=seed)
    assert correlation(run(rows, batch), rows) >= 1 - 1 / 4


def test_heavy_rows_decide():
    rows = instance("heavy")
    assert correlation(run(rows), rows) > 0.9
    assert correlation(run(rows, heavy=0), rows) < 0.5


def test_heavy_rows_are_found_and_few_numbers_kept():
    rows = instance("heavy")
    stream = run(rows, heavy=5)
    assert len(stream.heavy) == 2
    norms = rows.square().sum(1)
    assert torch.allclose(stream.heavy.square().sum(1), norms.sort(descending=True).values[:2])
    held = sum(v.numel() for v in vars(stream).values() if isinstance(v, torch.Tensor))
    assert held <= (5 + 4 * 4 + 1) * 60


def test_gap_helps():
    close, far = (1 - correlation(run(rows), rows) for rows in (instance("light"), instance("light", gap=64.0)))
    assert far < close
    assert far < 0.01


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_does_not_matter(scale):
    rows = instance("light", n=500)
    assert torch.allclose(run(rows * scale).vector(), run(rows).vector(), atol=1e-6)


def test_zeros_one_dimension_and_repeated_calls():
    stream = run(torch.zeros(10, 4))
    assert torch.equal(stream.vector(), torch.eye(4, dtype=torch.float64)[0])
    assert run(-torch.ones(5, 1)).vector().tolist() == [1.0]
    rows = instance("light", n=300)
    assert torch.equal(run(rows).vector(), run(rows).vector())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: StreamingEigenvector(3).vector(), "no row has been seen"),
        (lambda: StreamingEigenvector(3).update(torch.ones(2, 4)), r"must have shape \(b, 3\)"),
        (lambda: StreamingEigenvector(3).update(torch.full((1, 3), torch.inf)), "infinite"),
        (lambda: StreamingEigenvector(0), "dimension=0 is below 1"),
        (lambda: StreamingEigenvector(3, heavy=-1), "heavy=-1 must be at least 0"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
