"""Tensors with missing entries: what is planted comes back from a share of the entries, and tolerances find ranks."""

import itertools

import pytest
import torch

from polyad.decompose import cp_als, hooi, nonnegative_cp, sparse_cp_als
from polyad.formats import CP, Tucker

SHAPE = (14, 13, 12)


def drawn(shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(rank, seed=0, signed=True):
    draw = torch.Generator().manual_seed(seed)
    make = torch.randn if signed else torch.rand
    return CP(tuple(make(n, rank, generator=draw, dtype=torch.float64) for n in SHAPE)).to_dense()


def hidden(x, share, seed=7):
    seen = drawn(x.shape, seed) < share
    return x.where(seen, torch.nan), seen


def error(found, x):
    return float((found.to_dense() - x).norm() / x.norm())


@pytest.mark.parametrize(("share", "rank"), [(0.9, 3), (0.5, 3), (0.25, 2)])
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_terms_are_found_from_a_share_of_the_entries(share, rank, seed):
    x = planted(rank, seed)
    assert error(cp_als(hidden(x, share)[0], rank, mask=hidden(x, share)[1]), x) < 1e-3
    x = planted(rank, seed, signed=False)
    for update, goal in (("hals", 1e-2), ("mu", 5e-2)):
        given, seen = hidden(x, share)
        found = nonnegative_cp(given, rank, mask=seen, update=update, max_iter=400, stop=1e-10)
        assert error(found, x) < goal
        assert all(bool((factor >= 0).all()) for factor in found.factors)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.35])
def test_planted_tucker_tensors_are_found(share):
    draw = torch.Generator().manual_seed(3)
    core = torch.randn(2, 3, 2, generator=draw, dtype=torch.float64)
    factors = [torch.randn(n, r, generator=draw, dtype=torch.float64) for n, r in zip(SHAPE, core.shape, strict=True)]
    x = Tucker(core, tuple(factors)).to_dense()
    given, seen = hidden(x, share)
    errors = []
    found = hooi(
        given, (2, 3, 2), mask=seen, max_iter=300, stop=1e-14, callback=lambda i, n, v: errors.append(v["error"])
    )
    assert error(found, x) < 1e-5
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(errors))


def test_each_tensor_of_a_batch_has_its_own_mask():
    x = torch.stack([planted(2, 0), 1e20 * planted(2, 1), torch.zeros(SHAPE, dtype=torch.float64)])
    given, seen = hidden(x, 0.5)
    for found in (cp_als(given, 2, mask=seen, batch=1), hooi(given, (2, 2, 2), mask=seen, batch=1, max_iter=200)):
        dense = found.to_dense()
        assert not dense[2].any()
        for one, exact in zip(dense[:2], x[:2], strict=True):
            assert float((one - exact).norm() / exact.norm()) < 1e-3


def test_sparse_tensors_are_completed_from_what_they_store():
    x = planted(2, 4)
    given, seen = hidden(x, 0.5)
    stored = (x * seen).to_sparse()
    by_word = sparse_cp_als(stored, 2, mask="stored", max_iter=300, stop=1e-14)
    by_mask = sparse_cp_als(given, 2, mask=seen, max_iter=300, stop=1e-14)
    by_sparse_mask = sparse_cp_als(given.nan_to_num().to_sparse(), 2, mask=seen.to_sparse(), max_iter=300, stop=1e-14)
    assert error(by_word, x) < 1e-3
    assert torch.allclose(by_mask.to_dense(), by_word.to_dense())
    assert torch.allclose(by_sparse_mask.to_dense(), by_word.to_dense())
    zeros = x.clone()
    zeros[:7] = 0  # seen, but not stored
    starts = [torch.Generator().manual_seed(i) for i in range(4)]  # local minima exist, and each start is a call
    found = [sparse_cp_als((zeros * seen).to_sparse(), 2, mask=seen, stop=1e-14, generator=one) for one in starts]
    assert min(error(one, zeros) for one in found) < 1e-3


@pytest.mark.parametrize("decomposed", [cp_als, nonnegative_cp, sparse_cp_als])
def test_slices_never_seen_are_zero(decomposed):
    given, seen = hidden(planted(2, 5, signed=False), 0.6)
    seen = seen.clone()
    seen[3], seen[:, 5] = False, False
    dense = decomposed(given.where(seen, torch.nan), 2, mask=seen).to_dense()
    assert not dense[3].any()
    assert not dense[:, 5].any()
    assert dense[4, 4].any()


@pytest.mark.parametrize("rank", [1, 3])
def test_tolerances_find_the_planted_rank(rank):
    x = planted(rank, 6, signed=False)
    given, seen = hidden(x, 0.5)
    assert nonnegative_cp(x, tol=0.02).rank == rank
    assert nonnegative_cp(given, tol=0.02, mask=seen).rank == rank
    assert cp_als(given, tol=1e-3, mask=seen).rank == rank
    for found in (
        sparse_cp_als(x.to_sparse(), tol=0.02),
        sparse_cp_als((x * seen).to_sparse(), tol=0.02, mask="stored"),
    ):
        assert rank <= found.rank <= rank + 1  # one start a rank may end in a local minimum
        assert float(((found.to_dense() - x) * seen).norm() / (x * seen).norm()) <= 0.02 * 1.01


def test_sparse_tensors_are_exact_at_the_tolerance_zero():
    x = torch.zeros(9, 8, 7).index_put((torch.tensor([0, 8, 8]), torch.tensor([1, 2, 2]), torch.tensor([3, 4, 5])),
                                       torch.tensor([1.0, 2.0, 3.0]))  # fmt: skip
    found = sparse_cp_als(x.to_sparse(), tol=0)
    assert found.rank == 2
    assert torch.equal(found.to_dense(), x)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x, m: hooi(x, tol=0.1, mask=m), "tol=0.1 was given with a mask.* give rank"),
        (lambda x, m: nonnegative_cp(-x, tol=0.1), "tol=0.1 cannot be reached: x has negative entries"),
        (lambda x, m: nonnegative_cp(x, 2, tol=0.1), "exactly one of rank, tol"),
        (lambda x, m: sparse_cp_als(x), "exactly one of rank, tol"),
        (lambda x, m: sparse_cp_als(x, 2, mask="seen"), "mask='seen' is not known; give 'stored'"),
        (lambda x, m: sparse_cp_als(x.to_sparse(), 2, mask=~(x != 0)), "mask hides every entry"),
        (lambda x, m: cp_als(x, 2, mask=m[0]), r"mask of torch.bool and shape \(13, 12\) must hold bools in x's"),
    ],
)
def test_what_cannot_be_done_is_said(call, said):
    x = planted(2, 8, signed=False) + 0.1
    with pytest.raises(ValueError, match=said):
        call(x, x > 0.5)


WEIGHTS = {"equal": (1.0, 1.0, 1.0, 1.0), "falling": (1.0, 0.3, 0.1, 0.05), "tenfold": (1.0, 0.46, 0.22, 0.1)}


def weighted(shape, weights, seed, *, signed=True):
    """Unit vectors times these weights, and with it the generator, to draw a mask from."""
    draw = torch.Generator().manual_seed(seed)
    make = torch.randn if signed else torch.rand
    factors = [make(n, len(weights), generator=draw, dtype=torch.float64) for n in shape]
    return CP(tuple(f / f.norm(dim=0) for f in factors), torch.tensor(weights).double()).to_dense(), draw


@pytest.mark.parametrize("seed", range(3))
def test_one_entry_hidden_loses_no_weak_component(seed):
    x, draw = weighted((16, 16, 16), (1.0, 0.3, 0.1), seed)
    seen = torch.ones_like(x, dtype=torch.bool)
    seen.view(-1)[int(torch.randint(x.numel(), (1,), generator=draw))] = False
    assert error(cp_als(x, 3, mask=seen), x) < 1e-6
    assert cp_als(x, tol=0.05, mask=seen).rank == 3


@pytest.mark.parametrize("share", [0.9, 0.5, 0.4])
@pytest.mark.parametrize("kind", ["equal", "falling", "tenfold", "positive"])
@pytest.mark.parametrize(("shape", "rank"), [((14, 13, 12), 3), ((10, 9, 8, 7), 4), ((30, 8, 6), 2)])
def test_components_of_any_weight_are_completed(share, kind, shape, rank):
    x, draw = weighted(shape, WEIGHTS.get(kind, WEIGHTS["equal"])[:rank], rank, signed=kind != "positive")
    seen = torch.rand(x.shape, generator=draw, dtype=torch.float64) < share
    assert error(cp_als(x.where(seen, torch.nan), rank, mask=seen), x) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_sparse_completion_keeps_weak_components_too(seed):
    x, draw = weighted((12, 11, 10), (1.0, 0.3, 0.1), seed)
    seen = torch.rand(x.shape, generator=draw, dtype=torch.float64) < 0.9
    starts = [torch.Generator().manual_seed(i) for i in range(4)]  # local minima exist, and each start is a call
    fits = [sparse_cp_als(x, 3, mask=seen, stop=1e-10, max_iter=400, generator=one) for one in starts]
    assert min(error(fit, x) for fit in fits) < 1e-3


def test_real_data_are_completed_as_well_as_by_tensorly():
    from tensorly.datasets import load_IL2data

    x = torch.as_tensor(load_IL2data().tensor).double()
    seen = ~x.isnan()
    for rank, bound in ((2, 0.3183), (3, 0.2365)):  # the best of its starts
        rest = (cp_als(x, rank, mask=seen).to_dense() - x)[seen]
        assert float(rest.norm() / x[seen].norm()) < bound
