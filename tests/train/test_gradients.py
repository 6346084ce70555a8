"""Gradients that are not finite beside a finite loss never reach what is trained."""

import pytest
import torch
from torch import nn

from polyad.adapters import AdaLoRA, Adapters, DoRA, LoRA
from polyad.adapters.training.loop import train
from polyad.adapters.training.rate_range import rate_range
from polyad.train import descend
from polyad.train.gradients import DivergedError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def root(y):
    """Zero, with an infinite slope times zero: NaN."""
    return (y - y.detach()).sum().abs().sqrt() + y.square().mean()


def hosted(method, **how):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5))
    adapters = Adapters(model)
    adapters.attach("a", "*", method, rank=2, **how)
    return model, adapters


@pytest.mark.parametrize(("method", "how"), [(LoRA, {}), (DoRA, {}), (AdaLoRA, {"spare": 1, "every": 1})])
def test_training_stops_with_a_sentence_and_the_adapter_stays_finite(method, how):
    model, adapters = hosted(method, **how)

    def loss(step):
        y = model(X)
        return root(y) if step == 3 else y.square().mean()

    said = (
        r"the gradient of a\.0\.\S+ and of \d others holds NaN .* in step 3, though the loss is .*; the step was not"
    )
    with pytest.raises(DivergedError, match=said):
        train(adapters, "a", loss, steps=6, rate=0.01)
    assert all(torch.isfinite(t).all() for t in adapters.state_dict("a").values())
    assert all(p.grad is None for p in adapters.parameters("a"))
    assert torch.isfinite(model(X)).all()


def test_the_range_of_rates_says_what_is_wrong_from_the_start():
    model, adapters = hosted(LoRA)
    with pytest.raises(ValueError, match=r"not finite at the start, at any rate \(the gradient of a\.0\.A"):
        rate_range(adapters, "a", lambda step: root(model(X)), steps=4)


def test_the_plain_loop_stops_too_and_takes_large_gradients():
    model = nn.Linear(6, 5)
    before = model.weight.detach().clone()
    with pytest.raises(DivergedError, match="the gradient of weight and of 1 others holds NaN"):
        descend(model, lambda step: root(model(X)), steps=2, rate=0.1)
    assert torch.equal(model.weight, before)
    x = nn.Parameter(torch.ones(4))
    with pytest.raises(DivergedError, match="the gradient of 0 holds NaN"):
        descend([x], lambda step: root(x), steps=2, rate=0.1)
    descend([x], lambda step: 1e25 * x.sum(), steps=2, rate=0.1)
    assert torch.isfinite(x).all()
