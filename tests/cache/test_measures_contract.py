"""Every measure of the catalogue, held to the public contract, and wrong ones that it must catch."""

import pytest
import torch

import polyad.cache  # noqa: F401
from polyad import _check
from polyad._card import Card, Paper, methods
from polyad.testing import measures

CASES = {f"{c.name}-{check.__name__}": (c, check) for c in methods("measure") for check in measures.CHECKS}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


def right(x):
    """The cosines between the first members of x."""
    _check.finite("x", _check.dimensions("x", _check.floating("x", x), 2))
    rows = x.flatten(1)
    rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=1e-38)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows @ rows.mT


def parameters(model):
    return sum(parameter.double().abs().sum() for parameter in model.parameters())


def drawn(x):
    return right(x) - 0.1 * torch.rand(())


def in_place(x):
    found = right(x)
    x.mul_(2)
    return found


def beyond(x):
    return 1.5 * right(x)


def forgetful(model):
    next(iter(model.parameters())).data.mul_(1.1)
    return parameters(model)


def coarse(x):
    return right(x.bfloat16() if x.dtype == torch.float32 else x)


def bits(x):
    return right(x) * torch.finfo(x.dtype).bits / 64


def overflowing(x):
    rows = x.flatten(1)
    return (rows @ rows.mT) / rows.square().sum(1, keepdim=True)


def damped(x):
    rows = x.flatten(1)
    return (rows @ rows.mT) / (1e-3 + rows.norm(dim=1, keepdim=True) * rows.norm(dim=1))


def clipped(x):
    return right(x.clamp(max=1.0))


def of_the_first(x):
    return right(x + x[:1])


def upside_down(x):
    return right(x).flip(1)


def weighted(x):
    return right(x) * torch.arange(1, len(x) + 1, dtype=x.dtype)


def of_storage(x):
    return right(x if x.is_contiguous() else x.flip(-1) + 1)


def detached(x):
    return right(x if not x.requires_grad else x + 1)


def raw(x):
    rows = x.flatten(1)
    return rows @ torch.linalg.inv(rows.mT @ rows)


def forgiving(x):
    return right(torch.as_tensor(x).double().nan_to_num())


def mute(x):
    if not bool(torch.as_tensor(x).isfinite().all()):
        raise ValueError("no")
    return right(x)


WRONG = {
    "repeatable": (drawn, in_place, beyond, forgetful),
    "precision": (coarse, bits, drawn),
    "invariance": (overflowing, damped, clipped),
    "order": (of_the_first, upside_down, weighted),
    "layout": (of_storage, detached, drawn),
    "refusals": (raw, forgiving, mute),
}
SPOILT = {f"{prop}-{wrong.__name__}": (prop, wrong) for prop, several in WRONG.items() for wrong in several}


def card(function):
    source = Paper("Nobody", 2000, "Nothing", "arXiv:0")
    example = {"x": (4, 10, 6), "invariant": ("scale", "rotation", "rows"), "range": (-1, 1), "ordered": True}
    return Card(
        "spoilt", "measure", function, None, (source,), {} if function in (parameters, forgetful) else example
    )


@pytest.mark.parametrize(("prop", "wrong"), SPOILT.values(), ids=list(SPOILT))
def test_each_check_catches_measures_that_break_it(prop, wrong):
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        getattr(measures, prop)(card(wrong))


@pytest.mark.parametrize("check", measures.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("function", [right, parameters], ids=lambda function: function.__name__)
def test_the_measures_that_the_wrong_ones_spoil_are_right(check, function):
    check(card(function))
