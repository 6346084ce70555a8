"""Non-negative CP and matrix factorisation."""

import itertools

import pytest
import torch

from polyad.decompose import nmf, nonnegative_cp
from polyad.decompose.alternating.mttkrp import mttkrp_sweep

MODES = "abcdefgh"


def planted(*shape, rank=3, dtype=torch.float64, seed=0, batch=()):
    draw = torch.Generator().manual_seed(seed)
    letters = MODES[: len(shape)]
    factors = [torch.rand(*batch, n, rank, generator=draw, dtype=dtype) for n in shape]
    return torch.einsum(",".join(f"...{c}z" for c in letters) + "->..." + letters, *factors)


def error(format, x):
    dense, x = format.to_dense().double(), x.double()
    return float((dense - x).norm() / x.norm())


def nonnegative(format):
    return all(bool((t >= 0).all()) for t in format.tensors().values())


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6), (3, 4, 1, 2), (2, 3, 2, 3, 2)])
def test_shared_products_are_those_of_the_factors_of_the_moment(shape):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, *shape, generator=draw, dtype=torch.float64)
    factors = [torch.randn(2, 3, n, generator=draw, dtype=torch.float64) for n in shape]
    letters, seen = MODES[: len(shape)], []
    for mode, product in mttkrp_sweep(x, factors):
        others = [f"yz{c}" for m, c in enumerate(letters) if m != mode]
        rest = [f for m, f in enumerate(factors) if m != mode]
        expected = torch.einsum(f"y{letters},{','.join(others)}->yz{letters[mode]}", x, *rest)
        assert torch.allclose(product, expected)
        factors[mode] = torch.randn(factors[mode].shape, generator=draw, dtype=torch.float64)
        seen.append(mode)
    assert seen == list(range(len(shape)))


@pytest.mark.parametrize(("update", "goal"), [("hals", 2e-3), ("mu", 5e-2)])
@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 7), (5, 6, 1, 5)])
def test_planted_structure_is_found_for_every_tensor_of_a_batch(shape, update, goal):
    x = planted(*shape, batch=(2, 2))
    found = nonnegative_cp(x, 3, batch=2, update=update, max_iter=250, stop=1e-10)
    assert found.shape == x.shape
    assert nonnegative(found)
    errors = (found.to_dense() - x).flatten(2).norm(dim=2) / x.flatten(2).norm(dim=2)
    assert float(errors.max()) < goal


def test_matrices_are_the_same_by_both_doors_and_sparse():
    x = planted(12, 9).masked_fill(torch.eye(12, 9).bool(), 0)
    one = nmf(x, 3, max_iter=50)
    two = nonnegative_cp(x, 3, max_iter=50)
    assert torch.allclose(one.to_dense(), two.to_dense())
    sparse = nmf(x.to_sparse(), 3, max_iter=50)
    assert torch.allclose(one.to_dense(), sparse.to_dense(), atol=1e-6)
    assert nonnegative(one)
    batched = nmf(torch.stack((x, 2 * x)), 3, stop=0, max_iter=50)
    assert torch.allclose(batched.left.norm(dim=1), batched.right.norm(dim=2))
    assert batched.to_dense().shape == (2, 12, 9)


def test_the_best_of_rank_one_is_the_leading_singular_pair():
    x = planted(8, 6, rank=6)
    u, s, vh = torch.linalg.svd(x)
    best = s[0] * u[:, :1] @ vh[:1]
    assert torch.allclose(nmf(x, 1, stop=1e-16).to_dense(), best, rtol=1e-5)


@pytest.mark.parametrize("update", ["hals", "mu"])
def test_errors_reported_only_fall_and_are_those_returned(update):
    x, seen = planted(8, 9, 7, rank=6), []
    found = nonnegative_cp(
        x, 3, update=update, max_iter=30, stop=0, callback=lambda i, n, v: seen.append((i, n, v["error"]))
    )
    assert [i for i, _, _ in seen] == list(range(30))
    assert all(b[2] <= a[2] for a, b in itertools.pairwise(seen))
    assert seen[-1][2] == pytest.approx(error(found, x), rel=1e-6)


def test_extrapolation_and_reuse_beat_plain_updates():
    x = planted(12, 12, 12, rank=6, seed=2)
    assert error(nonnegative_cp(x, 6, max_iter=40), x) < 0.2 * error(
        nonnegative_cp(x, 6, update="mu", max_iter=40), x
    )


@pytest.mark.parametrize("call", [lambda x: nonnegative_cp(x, 2), lambda x: nonnegative_cp(x, 2, update="mu"),
                                  lambda x: nmf(x[0], 2), lambda x: nmf(x[0].to_sparse(), 2)])  # fmt: skip
def test_extremes(call):
    assert not call(torch.zeros(5, 4, 6)).to_dense().any()
    x = planted(5, 4, 6, rank=2, dtype=torch.float32)
    kept = x if call(x).ndim == 3 else x[0]
    for scale in (1e-30, 1.0, 1e30):
        assert error(call(x * scale), kept.double() * scale) < 0.03
    assert error(call(torch.ones(5, 4, 6)), torch.ones(kept.shape)) < 1e-3
    half = call(x.bfloat16().requires_grad_())
    assert half.dtype == torch.bfloat16
    assert not any(t.requires_grad for t in half.tensors().values())
    assert error(call(x.permute(0, 2, 1)), kept.mT) < 0.03


def test_negative_entries_are_left_to_the_hierarchical_updates():
    x = -planted(4, 5, 6)
    x[0] = 1
    found = nonnegative_cp(x, 2)
    assert nonnegative(found)
    assert error(found, x.clamp(min=0)) < 1e-3
    assert not nonnegative_cp(-torch.ones(3, 3, 3), 2).to_dense().gt(1e-6).any()


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda: nonnegative_cp(-torch.ones(3, 4, 5), 2, update="mu"), ValueError, "negative entries"),
        (lambda: nmf(-torch.ones(3, 4).to_sparse(), 2, update="mu"), ValueError, "negative entries"),
        (lambda: nonnegative_cp(torch.ones(3, 4, 5), 13), ValueError, "rank=13 exceeds"),
        (lambda: nonnegative_cp(torch.ones(3, 4, 5), 1, batch=2), ValueError, "3 dimensions"),
        (lambda: nonnegative_cp(torch.ones(3, 4, 5), 1, batch=4), ValueError, "batch=4"),
        (lambda: nonnegative_cp(torch.ones(3, 4), 1, update="als"), ValueError, "update='als'"),
        (lambda: nmf(torch.ones(3, 4), 4), ValueError, "rank=4 exceeds"),
        (lambda: nmf(torch.ones(3, 4), 2, update="als"), ValueError, "update='als'"),
        (lambda: nmf(torch.ones(3, 4) / 0, 2), ValueError, "12 infinite"),
        (lambda: nmf(torch.ones(2, 3, 4).to_sparse(), 2), ValueError, "one sparse COO matrix"),
        (lambda: nmf(torch.ones(3, 4).int(), 2), TypeError, "torch.int32"),
        (lambda: nonnegative_cp(torch.ones(3, 0, 4), 2), ValueError, "empty"),
    ],
)
def test_refusals(call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call()
