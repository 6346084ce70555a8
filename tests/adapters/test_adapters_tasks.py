"""Curves between adapters, bridges, and distillation into an expert a task."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from polyad.adapters import Adapters, BezierCurve, LoRA, bridge, expert, lorkd
from polyad.testing.adapters import move
from polyad.train import descend


def hosted(names):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))
    host = Adapters(model)
    for i, name in enumerate(names):
        host.attach(name, "*", LoRA, rank=2, seed=i)
        move(host, name, seed=i)
    return model, host


def seeded(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_curve_passes_through_its_ends_and_is_the_quadratic_of_its_middle():
    _, host = hosted(["between", "one", "other"])
    curve = BezierCurve(*(host.named_parameters(n) for n in ("between", "one", "other")))
    with torch.no_grad():
        for tensor in curve.middle.values():
            tensor.normal_()
    for r, name in ((0.0, "one"), (1.0, "other")):
        curve.move(r)
        for key, tensor in host.named_parameters(name).items():
            assert torch.equal(host.named_parameters("between")[key], tensor)
    found = curve.point(0.25)["0.A"]
    a, m, b = curve.first["0.A"], curve.middle["0.A"], curve.last["0.A"]
    torch.testing.assert_close(found, (0.5625 * a + 0.375 * m + 0.0625 * b).detach())


def test_the_middle_gets_the_gradient_of_the_curve():
    """What one step of plain descent would do, from automatic differentiation through the curve itself."""
    live = {"w": nn.Parameter(seeded(3))}
    curve = BezierCurve(live, {"w": seeded(3, seed=1)}, {"w": seeded(3, seed=2)})
    r = float(torch.rand((), generator=torch.Generator().manual_seed(5)))
    middle = curve.middle["w"].detach().clone().requires_grad_(True)
    theta = (1 - r) ** 2 * curve.first["w"] + 2 * r * (1 - r) * middle + r**2 * curve.last["w"]
    theta.pow(4).sum().backward()
    curve.fit(lambda step: live["w"].pow(4).sum(), steps=1, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(curve.middle["w"].grad, middle.grad)


def test_a_learned_curve_goes_around_what_lies_between_its_ends():
    """A loss with a ring of minima: the straight line passes near its middle, the curve does not."""
    live = {"w": nn.Parameter(torch.zeros(2))}
    ends = {"w": torch.tensor([1.0, 0.05])}, {"w": torch.tensor([-1.0, 0.05])}
    curve = BezierCurve(live, *ends)
    ring = lambda step=0: (live["w"].square().sum() - 1).square()  # noqa: E731
    curve.move(0.5)
    before = float(ring().detach())
    curve.fit(ring, steps=400, rate=0.02, generator=torch.Generator().manual_seed(0))
    curve.move(0.5)
    assert before > 0.9
    assert float(ring().detach()) < 0.1


def test_curves_refuse_ends_that_do_not_fit():
    live = {"w": nn.Parameter(torch.zeros(2))}
    with pytest.raises(ValueError, match="do not name the same"):
        BezierCurve(live, {"v": torch.zeros(2)}, {"w": torch.zeros(2)})
    with pytest.raises(ValueError, match="shape"):
        BezierCurve(live, {"w": torch.zeros(2)}, {"w": torch.zeros(3)})
    with pytest.raises(ValueError, match="NaN"):
        BezierCurve(live, {"w": torch.zeros(2)}, {"w": torch.full((2,), torch.nan)})
    with pytest.raises(ValueError, match=r"r=1\.5"):
        BezierCurve(live, live, live).point(1.5)


def test_a_bridge_learns_what_it_predicts_and_nothing_else_changes():
    base, other = nn.Linear(6, 8), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    before = copy.deepcopy([base.state_dict(), other.state_dict()])
    x = seeded(256, 6)
    head = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    g = torch.Generator().manual_seed(0)
    losses = bridge(head, base, other, lambda step: x, steps=400, rate=0.02, generator=g)
    assert losses[-1] < 0.02 * losses[0]
    for model, held in zip((base, other), before, strict=True):
        assert all(torch.equal(t, held[key]) for key, t in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())


def test_rows_are_mixed_before_both_networks_see_them():
    seen = []
    x = seeded(8, 3)
    g = torch.Generator().manual_seed(0)

    def features(x):
        seen.append(x)
        return x

    bridge(nn.Linear(3, 2), features, nn.Linear(3, 2), lambda step: x, steps=2, generator=g)
    bridge(nn.Linear(3, 2), features, nn.Linear(3, 2), lambda step: x, steps=1, mixup=0.0)
    assert not torch.equal(seen[0], x)
    torch.testing.assert_close(seen[0].mean(0), x.mean(0))
    assert torch.equal(seen[2], x)


def grads(host, names, rows, model, x, y):
    for p in model.parameters():
        p.grad = None
    with host.routed(rows):
        F.cross_entropy(model(x), y, reduction="sum").backward()
    return {n: [None if p.grad is None else p.grad.clone() for p in host.parameters(n)] for n in names}


def test_gradients_of_tasks_are_separate():
    """A mixed batch gives each expert what its own rows alone give it, and nothing to one without rows."""
    names = ["a", "b", "c"]
    model, host = hosted(names)
    x, y = seeded(9, 6), torch.arange(9) % 4
    rows = ["a", "b", "a", "a", "b", "b", "a", "b", "b"]
    mixed = grads(host, names, rows, model, x, y)
    for name in ("a", "b"):
        own = [i for i, each in enumerate(rows) if each == name]
        alone = grads(host, names, [name] * len(own), model, x[own], y[own])
        for one, two in zip(mixed[name], alone[name], strict=True):
            torch.testing.assert_close(one, two)
        others = [g for n in names if n != name for g in alone[n]]
        assert all(g is None or not bool(g.any()) for g in others)
    assert all(g is None or not bool(g.any()) for g in mixed["c"])


def test_distillation_trains_backbone_and_experts_and_gives_plain_models():
    names = ["a", "b"]
    model, host = hosted(names)
    teacher = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))
    x = seeded(64, 6)
    rows = [names[i % 2] for i in range(64)]
    y = (teacher(x).argmax(1) + torch.arange(64) % 2) % 4
    before = {k: t.clone() for k, t in model.state_dict().items()}
    losses = lorkd(host, names, lambda step: (x, y, rows), teacher, steps=60, rate=0.02, weight=0.1)
    assert losses[-1] < 0.6 * losses[0]
    assert all(not torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".adapters." not in n)
    with host.routed(rows):
        found = model(x)
    for i, name in enumerate(names):
        alone = expert(host, name)
        assert not any("adapters" in key for key in alone.state_dict())
        torch.testing.assert_close(alone(x[i::2]), found[i::2], rtol=1e-4, atol=1e-5)
    assert host.names == names


def test_distillation_adds_the_divergence_from_the_teacher():
    _, host = hosted(["a"])
    x, y = seeded(5, 6), torch.tensor([0, 1, 2, 3, 0])
    teacher = nn.Linear(6, 4)
    logits, t = host.model(x), 3.0
    divergence = (teacher(x) / t).softmax(-1) * ((teacher(x) / t).log_softmax(-1) - (logits / t).log_softmax(-1))
    expected = F.cross_entropy(logits, y) + 0.5 * t**2 * divergence.sum(-1).mean()
    found = lorkd(host, ["a"], lambda step: (x, y, "aaaaa"), teacher, steps=1, weight=0.5, temperature=t)
    assert found[0] == pytest.approx(float(expected.detach()), rel=1e-5)
    with pytest.raises(ValueError, match="temperature=0"):
        lorkd(host, ["a"], lambda step: (x, y, "aaaaa"), steps=1, temperature=0.0)


def test_distillation_refuses_models_that_return_no_logits():
    class Wrapped(nn.Sequential):
        def forward(self, x):
            return (super().forward(x),)

    adapters = Adapters(Wrapped(nn.Linear(4, 3)))
    adapters.attach("a", "*", LoRA, rank=1)
    x, y = torch.eye(4), torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"the model returns tuple; adapt a module that returns logits"):
        lorkd(adapters, ["a"], lambda step: (x, y, "aaaa"), steps=1)


def test_a_loss_that_is_not_finite_is_refused_before_it_is_learned():
    x = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"the loss of step 1 is nan; choose a lower rate than 0\.5"):
        descend([x], lambda step: x.sum() * (float("nan") if step else 1.0), steps=3, rate=0.5, stage="going")
    assert bool(torch.isfinite(x).all())
    with pytest.raises(ValueError, match="steps=0 leaves nothing to train"):
        descend([x], lambda step: x.sum(), steps=0, rate=0.5, stage="going")
    curve = BezierCurve({"x": x}, {"x": torch.zeros(2)}, {"x": torch.ones(2)})
    with pytest.raises(ValueError, match="the loss of step 0 is inf"):
        curve.fit(lambda step: x.sum() * float("inf"), steps=1, rate=0.5, generator=torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(curve.middle["x"]).all())
