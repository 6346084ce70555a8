"""Every factorisation of the catalogue, held to the public contract, and wrong ones that it must catch."""

import pytest
import torch

import polyad.compress  # noqa: F401
from polyad import _check
from polyad._card import Card, Paper, methods
from polyad.formats import LowRank
from polyad.linalg import roots
from polyad.linalg.metric import tails
from polyad.statistics import Moments, input_moment
from polyad.testing import factors

CASES = {f"{c.name}-{check.__name__}": (c, check) for c in methods("factor") for check in factors.CHECKS}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


def parts(weight, stats):
    root, inverse = roots(input_moment(stats, weight.shape[1], "right").double())
    return *torch.linalg.svd(weight.double() @ root, full_matrices=False), inverse


def right(weight, stats, rank):
    """The best factors for the inputs' second moment, each with a share of every singular value."""
    _check.weight(weight, rank)
    u, s, vh, inverse = parts(weight, stats)
    lower = vh[:rank] @ inverse
    level = (s[:rank] / lower.norm(dim=1).clamp(min=1e-300)).sqrt().clamp(min=1e-300)
    return LowRank((u[:, :rank] * (s[:rank] / level)).to(weight.dtype), (lower * level[:, None]).to(weight.dtype))


def curve(weight, stats):
    return tails(parts(weight, stats)[1].square())


def rows_flipped(weight, stats, rank):
    found = right(weight, stats, rank)
    return LowRank(found.left.flip(0), found.right)


def columns_flipped(weight, stats, rank):
    found = right(weight, stats, rank)
    return LowRank(found.left, found.right.flip(1))


def least_directions(weight, stats, rank):
    u, s, vh, inverse = parts(weight, stats)
    return LowRank((u * s)[:, -rank:].to(weight.dtype), (vh @ inverse)[-rank:].to(weight.dtype))


def of_rank_two(weight, stats, rank):
    return right(weight, stats, min(2, *weight.shape))


def blind(weight, stats, rank):
    return right(weight, Moments(1, second=torch.eye(weight.shape[1])), rank)


def transposed_metric(weight, stats, rank):
    return right(weight, Moments(1, second=stats.second.flip(0, 1)), rank)


def reading(weight, stats, rank):
    return blind(weight, stats, rank) if stats is None else right(weight, stats, rank)


def of_first_columns(weight, stats, rank):
    eye = torch.eye(weight.shape[1], dtype=weight.dtype)
    return LowRank(weight[:, :rank].clone(), eye[:rank].clone())


def loving_the_first(weight, stats, rank):
    scaled = torch.ones(weight.shape[1], dtype=weight.dtype)
    scaled[0] = 3
    found = right(weight * scaled, stats, rank)
    return LowRank(found.left, found.right / scaled)


def of_sorted_rows(weight, stats, rank):
    found = right(weight, stats, rank)
    return LowRank(found.left[torch.arange(len(weight)).flip(0)], found.right)


def in_place(weight, stats, rank):
    return right(weight.mul_(2), stats, rank)


def in_single(weight, stats, rank):
    return right(weight.float(), stats, rank)


def drawn(weight, stats, rank):
    return right(weight + torch.rand(()).to(weight.dtype), stats, rank)


def wide(weight, stats, rank):
    found = right(weight, stats, rank)
    return LowRank(*(torch.cat((t, 0 * t), axis) for t, axis in ((found.left, 1), (found.right, 0))))


def in_half(weight, stats, rank):
    coarse = torch.float8_e5m2 if weight.itemsize < 4 else weight.dtype
    found = right(weight, stats, rank)
    return LowRank(found.left.to(coarse).to(weight.dtype), found.right)


def damped(weight, stats, rank):
    eye = torch.eye(weight.shape[1])
    return right(weight, Moments(1, second=stats.second + 1e-3 * eye), rank)


def clamped(weight, stats, rank):
    return right(weight.clamp(-100, 100), stats, rank)


def lopsided(weight, stats, rank):
    u, s, vh, inverse = parts(weight, stats)
    return LowRank((u * s)[:, :rank].to(weight.dtype), (vh @ inverse)[:rank].to(weight.dtype))


def inverted(weight, stats, rank):
    root = torch.linalg.cholesky(stats.second.double())
    u, s, vh = torch.linalg.svd(weight.double() @ root, full_matrices=False)
    return LowRank((u * s)[:, :rank].to(weight.dtype), (vh @ torch.linalg.inv(root))[:rank].to(weight.dtype))


def normalised(weight, stats, rank):
    size = weight.norm()
    found = right((weight / size).nan_to_num(), stats, rank)
    return LowRank(found.left * size, found.right * (1 / size))


def of_whole_inputs(weight, stats, rank):
    return right(weight * (stats.second.diagonal() > 0), stats, rank) if rank > 2 else blind(weight, stats, rank)


def of_storage(weight, stats, rank):
    return right(weight.as_strided(weight.shape, (weight.shape[1], 1)), stats, rank)


def if_contiguous(weight, stats, rank):
    return right(weight if weight.is_contiguous() else 0 * weight, stats, rank)


def forgiving(weight, stats, rank):
    return right(weight.nan_to_num(), stats, rank)


def careless(weight, stats, rank):
    return right(weight, stats, max(1, min(int(rank or 1), *weight.shape)))


def unsure(weight, stats, rank):
    return right(
        weight, Moments(1, second=stats.second.nan_to_num()) if stats and stats.second is not None else stats, rank
    )


def twice(weight, stats):
    return 2 * curve(weight, stats)


def twice_in_half(weight, stats):
    return curve(weight, stats) * (2 if weight.itemsize < 4 else 1)


def of_the_other(weight, stats):
    return tails(torch.linalg.svdvals(weight.double()).square())


def rounded(weight, stats):
    return tails(torch.linalg.svdvals((weight @ roots(stats.second)[0].to(weight.dtype)).float()).square())


def raw(weight, stats):
    return tails(torch.linalg.svdvals(weight @ roots(stats.second)[0].to(weight.dtype)).square())


def sizes(stats):
    """The metric of a method that weighs columns by the largest size of their inputs."""
    return stats.peak.diag()


def weighed(weight, stats, rank):
    return right(weight, Moments(1, second=sizes(stats)), rank)


def weighed_curve(weight, stats):
    return curve(weight, Moments(1, second=sizes(stats)))


def plain(weight, stats, rank):
    """Nothing but the largest rows."""
    order = weight.norm(dim=1).argsort(descending=True)[:rank]
    return LowRank(torch.eye(len(weight), dtype=weight.dtype)[:, order], weight[order])


WRONG = {
    "result": ({"function": in_place}, {"function": in_single}, {"function": drawn}, {"function": in_half},
               {"function": wide}),
    "error_curve": (
        {"function": weighed, "curve": curve, "metric": sizes},
        {"function": rows_flipped}, {"function": columns_flipped}, {"function": least_directions},
        {"function": of_rank_two}, {"function": blind}, {"curve": twice}, {"curve": of_the_other},
        {"function": of_sorted_rows, "curve": None}, {"function": of_rank_two, "curve": None},
    ),
    "half_precision": ({"curve": rounded}, {"curve": raw}, {"curve": twice_in_half}),
    "metric": (
        {"function": blind}, {"function": transposed_metric}, {"function": reading, "needs": {}},
        {"function": blind, "metric": sizes}, {"function": plain, "metric": sizes},
    ),
    "permutation": ({"function": of_first_columns}, {"function": loving_the_first}, {"function": of_sorted_rows}),
    "scale": ({"function": damped}, {"function": clamped}, {"function": lopsided}, {"curve": raw}),
    "dead_layers": ({"function": inverted}, {"function": normalised}, {"function": of_whole_inputs}),
    "layout": ({"function": of_storage}, {"function": if_contiguous}, {"function": drawn}),
    "refusals": ({"function": forgiving}, {"function": careless}, {"function": unsure}, {"curve": raw}),
}  # fmt: skip
SPOILT = {
    f"{prop}-{'-'.join(getattr(v, '__name__', str(v)) for v in wrong.values())}": (prop, wrong)
    for prop, several in WRONG.items()
    for wrong in several
}


def card(function=right, curve=curve, needs=None, metric=None):
    source = Paper("Nobody", 2000, "Nothing", "arXiv:0")
    needs = {"": frozenset({"second"})} if needs is None else needs
    example = {"rank": 2} if metric is None else {"rank": 2, "metric": metric}
    return Card("spoilt", "factor", function, LowRank, (source,), example, needs, curve)


@pytest.mark.parametrize(("prop", "wrong"), SPOILT.values(), ids=list(SPOILT))
def test_each_check_catches_factorisations_that_break_it(prop, wrong):
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        getattr(factors, prop)(card(**wrong))


@pytest.mark.parametrize("check", factors.CHECKS, ids=lambda check: check.__name__)
def test_the_factorisation_that_the_wrong_ones_spoil_is_right(check):
    check(card())


@pytest.mark.parametrize("check", factors.CHECKS, ids=lambda check: check.__name__)
def test_a_factorisation_that_minimises_a_metric_of_its_own_states_it(check):
    check(card(weighed, weighed_curve, {"": frozenset({"peak"})}, sizes))
