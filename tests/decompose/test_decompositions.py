"""Every decomposition of the catalogue, held to the public contract."""

import pytest
import torch

import polyad.decompose  # noqa: F401
from polyad._card import Card, Paper, methods
from polyad.formats import LowRank
from polyad.testing import decompositions

CASES = {f"{c.name}-{check.__name__}": (c, check) for c in methods("decompose") for check in decompositions.CHECKS}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


def factors(x, rank=1, tol=None):
    u, s, v = torch.linalg.svd(x.float(), full_matrices=False)
    kept = rank if tol is None else 1
    return LowRank((u[:, :kept] * s[:kept]).to(x.dtype), v[:kept].to(x.dtype))


def in_place(x, rank=1):
    found = factors(x, rank)
    x.mul_(2)
    return found


def least(x, rank=1):
    """Keeps the singular values that matter least."""
    u, s, v = torch.linalg.svd(x.float(), full_matrices=False)
    return LowRank((u[:, -rank:] * s[-rank:]).to(x.dtype), v[-rank:].to(x.dtype))


def zeros(x):
    return LowRank(x.new_zeros(*x.shape[:-1], 1), x.new_zeros(*x.shape[:-2], 1, x.shape[-1]))


SPOILT = {
    "result": in_place,
    "repeatable": lambda x, rank=1: LowRank(torch.rand(len(x), rank), torch.rand(rank, x.shape[1])),
    "planted": least,
    "scale": lambda x, rank=1: factors(x.clamp(max=10), rank),
    "awkward": lambda x, rank=1: LowRank(x / x.norm(), x.new_ones(x.shape[1], x.shape[1])),
    "layout": lambda x, rank=1: factors(x if x.is_contiguous() else 0 * x, rank),
    "gradients": lambda x, rank=1: LowRank(x / x.norm(dim=1, keepdim=True), x.mT @ x),
    "complex_numbers": lambda x, rank=1: LowRank(*(t.to(x.dtype) for t in factors(x.real, rank).tensors().values())),
    "refusals": lambda x, rank=1: LowRank(torch.ones(len(x), 1), torch.ones(1, x.shape[1])),
    "tolerance": factors,
    "masks": lambda x, rank=1, mask=None: factors(x.nan_to_num(), rank),
    "beyond": lambda x, rank=1: factors(x),
    "short": lambda x, rank=1: factors(-x, rank),
    "batches": lambda x, rank=1, batch=0: zeros(x) if batch else factors(x, rank),
}


@pytest.mark.parametrize("prop", [check.__name__ for check in decompositions.CHECKS])
def test_each_check_catches_a_decomposition_that_breaks_it(prop):
    source = Paper("Eckart, Young", 1936, "The approximation of one matrix by another", "doi:10.1007/BF02288367")
    card = Card("spoilt", "decompose", SPOILT[prop], LowRank, (source,), {"x": (6, 5), "rank": 1})
    with pytest.raises(AssertionError):
        getattr(decompositions, prop)(card)
