"""Operations of the catalogue, held to the public contract; wrong ones of our own, each caught by its check."""

import pytest
import torch
from torch import nn

import polyad.adapters
import polyad.attention
import polyad.cache  # noqa: F401
from polyad._card import KINDS, Card, Paper, methods
from polyad.adapters import Adapters, LoRA
from polyad.testing import operations

CASES = {
    f"{card.name}-{check.__name__}": (card, check) for card in methods("operation") for check in operations.CHECKS
}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


def test_there_is_no_drawer():
    assert "function" not in KINDS


def arguments(generator):
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout())
    adapters = Adapters(model)
    for name in "ab":
        adapters.attach(name, "*", LoRA, rank=1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    rows = torch.randn(5, 3, generator=generator)
    model.eval()
    return {"adapters": adapters, "names": ["a", "b"], "run": lambda: model(rows), "weight": 0.5}


def mean(adapters, names, run, weight) -> torch.Tensor:
    """The weighted mean of outputs over adapters, each active alone."""
    if not names or not 0 < weight < 1:
        raise ValueError(f"names={names} or weight={weight} leaves nothing to do; give names and a share")
    before = dict(adapters.active)
    try:
        parts = []
        for name in names:
            adapters.activate(name)
            parts.append(weight * run().detach())
    finally:
        adapters.activate(before)
    found = torch.stack(parts).sum(0)
    if not bool(torch.isfinite(found).all()):
        raise ValueError("run gives NaN or infinite numbers; repair the model")
    return found


def distance(found, adapters, names, run, weight):
    expected = torch.zeros_like(found)
    for name in names:
        adapters.activate(name)
        expected += weight * run().detach()
    return float((found - expected).abs().max()) / 1e-5


def operation(function=mean, **given):
    example = {"arguments": arguments, "off": distance}
    return Card("toy", "operation", function, None, (Paper("Nobody", 2000, "", "arXiv:0"),), {**example, **given})


def test_a_good_operation_passes():
    for check in operations.CHECKS:
        check(operation())


def first(adapters, names, run, weight):
    return mean(adapters, names[:1], run, weight) * 2


def listed(adapters, names, run, weight) -> dict:
    return mean(adapters, names, run, weight)


def switching(adapters, names, run, weight):
    """Leaves the last adapter active."""
    found = mean(adapters, names, run, weight)
    adapters.activate(names[-1])
    return found


def training(adapters, names, run, weight):
    """Leaves the model in training mode."""
    found = mean(adapters, names, run, weight)
    adapters.model.train()
    return found


def thawing(adapters, names, run, weight):
    found = mean(adapters, names, run, weight)
    adapters.model.requires_grad_(True)
    return found


def nudging(adapters, names, run, weight):
    """Changes a weight."""
    found = mean(adapters, names, run, weight)
    with torch.no_grad():
        adapters.model[0].layer.weight.mul_(1 + 1e-6)
    return found


def viewing(adapters, names, run, weight):
    """Gives the adapter's own numbers beside the result."""
    return {"mean": mean(adapters, names, run, weight), "own": adapters.of("a")["0"].A.detach()}


def noisy(adapters, names, run, weight):
    return mean(adapters, names, run, weight) + 1e-7 * torch.rand(())


def careless(adapters, names, run, weight):
    """Restores what was active only if all goes well."""
    before = dict(adapters.active)
    parts = []
    for name in names:
        adapters.activate(name)
        parts.append(weight * run().detach())
    adapters.activate(before)
    return torch.stack(parts).sum(0)


def swallowing(adapters, names, run, weight):
    try:
        return mean(adapters, names, run, weight)
    except Exception:
        return torch.zeros(5, 4)


def trusting(adapters, names, run, weight):
    """Takes any weight."""
    return mean(adapters, names, run, 0.5) * (weight / 0.5)


def lenient(adapters, names, run, weight):
    """Passes over names that are not there."""
    known = [name for name in names if name in adapters.names]
    return mean(adapters, known or ["a"], run, weight)


OPERATIONS = [
    ("outcome", operation(first), "times as far off"), ("outcome", operation(listed), "gives a Tensor"),
    ("sensitive", operation(off=lambda found, **_: 0.0), "off by a tenth"),
    ("side_effects", operation(switching), "changes adapters, which now at active"),
    ("side_effects", operation(training), "at training is True, not False"),
    ("side_effects", operation(thawing), "is trained is True, not False"),
    ("side_effects", operation(nudging), "changes adapters, which now at 0.weight has other numbers"),
    ("side_effects", operation(viewing), "once its result is changed"),
    ("repeatable", operation(noisy), "torch's own generator"),
    ("interruption", operation(careless), "where run fails changes adapters"),
    ("interruption", operation(swallowing), "goes on although run fails"),
    ("refusals", operation(trusting), "accepted nan in weight"), ("refusals", operation(lenient), "as names"),
]  # fmt: skip


@pytest.mark.parametrize(("prop", "card", "said"), OPERATIONS)
def test_each_check_catches_an_operation_that_breaks_it(prop, card, said):
    with pytest.raises(AssertionError, match=said):
        getattr(operations, prop)(card)


def test_every_check_has_a_wrong_operation():
    assert {prop for prop, *_ in OPERATIONS} == {check.__name__ for check in operations.CHECKS}
