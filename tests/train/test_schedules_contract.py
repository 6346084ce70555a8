"""The contract of schedules, held on two good ones and on wrong ones that it must catch; the loop that hosts them."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from polyad._card import Card, Paper, methods
from polyad.formats import LowRank
from polyad.layers import Linear
from polyad.linalg import truncated_svd
from polyad.testing import methods as cards
from polyad.testing import schedules
from polyad.train import Schedule, descend

PAPER = Paper("Nobody", 2000, "Nothing", "arXiv:0")


def card(function, **example):
    return Card(function.__name__, "schedule", function, None, (PAPER,), example)


class Pruning(Schedule):
    """Sets the smallest weights of every matrix to zero, more of them with every step."""

    def __init__(self, sparsity=0.5):
        self.sparsity = sparsity

    def start(self, model):
        super().start(model)
        self.masks = {
            name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters() if p.ndim > 1
        }

    def after_step(self, step, total):
        share = self.sparsity * (1 - (1 - (step + 1) / total) ** 3)
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                if name in self.masks:
                    mask = self.masks[name]
                    size = p.abs().where(mask, -1).flatten()
                    mask.view(-1)[size.argsort(stable=True)[: round(share * size.numel())]] = False
                    p.mul_(mask)

    def state_dict(self):
        return dict(self.masks)

    def load_state_dict(self, state):
        self.masks = {name: mask.clone() for name, mask in state.items()}


class RankDecay(Schedule):
    """Factors every layer and cuts its rank as training goes; ends in layers of low rank."""

    def __init__(self, least=2, weight=1e-3):
        self.least, self.weight = least, weight

    def start(self, model):
        super().start(model)
        self.paths = [path for path, m in model.named_modules() if isinstance(m, nn.Linear | Linear)]
        for path in self.paths:
            layer = model.get_submodule(path)
            matrix = layer.weight().to_dense() if isinstance(layer, Linear) else layer.weight
            self._put(path, matrix.detach(), min(matrix.shape))

    def _put(self, path, matrix, rank):
        layer = self.model.get_submodule(path)
        u, s, vh = truncated_svd(matrix.float(), rank)
        root = s.sqrt()
        weight = LowRank((u * root).to(matrix), (root[:, None] * vh).to(matrix))
        self.model.set_submodule(path, Linear(weight, layer.bias.detach()))

    def groups(self, rate):
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        biases = [p for name, p in trained if name.endswith("bias")]
        return [
            {"params": [p for name, p in trained if not name.endswith("bias")], "lr": rate},
            {"params": biases, "lr": rate / 2},
        ]

    def penalty(self):
        factors = [p for name, p in self.model.named_parameters() if not name.endswith("bias")]
        return self.weight * sum(p.float().square().sum() for p in factors)

    def after_step(self, step, total):
        for path in self.paths if step % 3 == 2 else ():
            weight = self.model.get_submodule(path).weight()
            rank = weight.rank
            if rank > self.least:
                self._put(path, weight.to_dense().detach(), rank - 1)

    def state_dict(self):
        return {path: torch.tensor(self.model.get_submodule(path).weight().rank) for path in self.paths}

    def load_state_dict(self, state):
        for path, rank in state.items():
            self._put(path, self.model.get_submodule(path).weight().to_dense().detach(), int(rank))


GOOD = [card(Pruning, sparsity=0.7), card(RankDecay), card(Schedule)]
CASES = {
    f"{one.name}-{check.__name__}": (one, check)
    for one in (*methods("schedule"), *GOOD)
    for check in (*schedules.CHECKS, cards.signature)
}


@pytest.mark.parametrize(("one", "check"), CASES.values(), ids=list(CASES))
def test_contract(one, check):
    check(one)


class Frozen(Schedule):
    """Trains nothing: all gradients are taken away."""

    def after_backward(self, step, total):
        for p in self.model.parameters():
            p.grad = torch.zeros_like(p)


class Hooked(Pruning):
    """Leaves a hook behind that prunes."""

    def start(self, model):
        super().start(model)
        model[0].register_forward_pre_hook(lambda module, args: None)


class Halved(Schedule):
    """Computes with half of the weights of a layer; the model saves all of them."""

    def start(self, model):
        super().start(model)
        layer = model[0]
        layer.forward = lambda x: nn.functional.linear(x, layer.weight / 2, layer.bias)


class Rounded(Schedule):
    """Gives the last layer's module a state that it does not save."""

    def after_step(self, step, total):
        if step + 1 == total:
            self.model[4] = Shifted(self.model[4])


class Shifted(nn.Linear):
    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.shift = 0.1

    def forward(self, x):
        return super().forward(x) + self.shift


class Forgetful(Pruning):
    """Does not say what it has pruned, so that a run that goes on prunes anew."""

    def after_step(self, step, total):
        if step == 0:
            self.masks = {name: p.detach().abs() > 0.1 for name, p in self.model.named_parameters() if p.ndim > 1}
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.model.get_parameter(name).mul_(mask)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Counted(Schedule):
    """Counts its own steps and keeps the count to itself."""

    def start(self, model):
        super().start(model)
        self.count = 0

    def after_backward(self, step, total):
        self.count += 1
        for p in self.model.parameters():
            p.grad.mul_(1 / self.count)


class Drawn(Schedule):
    """Drops gradients by torch's own generator."""

    def after_backward(self, step, total):
        for p in self.model.parameters():
            p.grad.mul_(torch.rand(p.shape) < 0.5)


class Started(Schedule):
    """Goes on where the last model stopped."""

    count = 0

    def after_backward(self, step, total):
        self.count += 1
        for p in self.model.parameters():
            p.grad.mul_(1 / self.count)


class Without(Schedule):
    """Has the biases in no group."""

    def groups(self, rate):
        return [{"params": [p for p in self.model.parameters() if p.ndim > 1], "lr": rate}]


class Fixed(Schedule):
    """Trains at a rate of its own."""

    def groups(self, rate):
        return [{"params": list(self.model.parameters()), "lr": 0.01}]


class Doubled(Schedule):
    """Has the first layer in two groups."""

    def groups(self, rate):
        first = list(self.model[0].parameters())
        return [*super().groups(rate), {"params": first, "lr": rate}]


class Edged(Schedule):
    """A norm whose gradient is no number where the weights are zero."""

    def penalty(self):
        return 1e-3 * sum(p.square().sum().sqrt() for p in self.model.parameters())


class Detached(Schedule):
    """A penalty without a gradient."""

    def penalty(self):
        return sum(p.detach().square().sum() for p in self.model.parameters())


WRONG = {
    "Frozen": (Frozen, "descent", "trains nothing"),
    "Hooked": (Hooked, "ordinary", "_forward_pre_hooks"),
    "Halved": (Halved, "ordinary", "another forward"),
    "Shifted": (Rounded, "ordinary", "another model than saved"),
    "Forgetful": (Forgetful, "resume", "goes on to other losses"),
    "Counted": (Counted, "resume", "goes on to other losses"),
    "Drawn": (Drawn, "repeatable", "torch's own generator"),
    "Started": (Started, "repeatable", "started a second time"),
    "Without": (Without, "coverage", "in no group"),
    "Fixed": (Fixed, "coverage", "does not let the rate"),
    "Edged": (Edged, "penalties", "not finite"),
    "Detached": (Detached, "penalties", "has a part in the penalty"),
}


@pytest.mark.parametrize(("wrong", "prop", "said"), WRONG.values(), ids=list(WRONG))
def test_each_check_catches_a_schedule_that_breaks_it(wrong, prop, said):
    with pytest.raises(AssertionError, match=said):
        getattr(schedules, prop)(card(wrong))


def test_a_parameter_in_two_groups_is_refused_by_the_optimiser():
    with pytest.raises(ValueError, match="more than one parameter group"):
        schedules.coverage(card(Doubled))


def test_every_check_has_a_wrong_schedule():
    assert {prop for _, prop, _ in WRONG.values()} == {check.__name__ for check in schedules.CHECKS}


def test_the_plain_schedule_is_no_schedule():
    losses, models, x = [], [schedules.network() for _ in range(3)], torch.eye(8)
    for model, schedule in zip(models, (Schedule(), None, None), strict=True):
        trained = model if model is not models[2] else model.parameters()
        losses.append(
            descend(trained, lambda step, m=model: m(x).square().sum(), steps=5, rate=0.1, schedule=schedule)
        )
    assert losses[0] == losses[1] == losses[2]
    for name, tensor in models[0].state_dict().items():
        assert all(torch.equal(tensor, model.state_dict()[name]) for model in models[1:])


def test_hooks_are_called_in_order_and_the_penalty_counts():
    called = []

    class Told(Schedule):
        def before_step(self, step, total):
            called.append(("before", step, total))

        def penalty(self):
            called.append("penalty")
            return 3 * self.model.weight.sum()

        def after_backward(self, step, total):
            called.append(("backward", float(self.model.weight.grad)))

        def after_step(self, step, total):
            called.append(("after", step, total))

    model = nn.Linear(1, 1, bias=False)
    loss = lambda step: (called.append("loss"), 2 * model.weight.sum())[1]  # noqa: E731
    before = float(model.weight.detach())
    losses = descend(model, loss, steps=2, rate=0.1, schedule=Told())
    step = lambda i: [("before", i, 2), "loss", "penalty", ("backward", 5.0), ("after", i, 2)]  # noqa: E731
    assert called == [*step(0), *step(1)]
    assert losses[0] == pytest.approx(2 * before)


def test_what_the_optimiser_knows_of_cut_parameters_goes_and_of_others_stays(monkeypatch):
    class Cut(Schedule):
        def after_step(self, step, total):
            if step == 2:
                self.model[0].weight = nn.Parameter(self.model[0].weight.detach()[:2])
                self.model[0].bias = nn.Parameter(self.model[0].bias.detach()[:2])
                self.model[1].weight = nn.Parameter(self.model[1].weight.detach()[:, :2])

    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    kept = model[1].bias
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    optimizers = []

    class Spied(torch.optim.Adam):
        def __init__(self, *given):
            super().__init__(*given)
            optimizers.append(self)

    monkeypatch.setattr(torch.optim, "Adam", Spied)
    descend(model, lambda step: (model(x) - x[:, :2]).square().mean(), steps=5, rate=0.01, schedule=Cut())
    assert len(optimizers) == 2
    steps = {name: int(optimizers[-1].state[p]["step"]) for name, p in model.named_parameters()}
    assert steps == {"0.weight": 2, "0.bias": 2, "1.weight": 2, "1.bias": 5}
    assert model[1].bias is kept


def test_a_file_is_of_one_schedule_and_one_model(tmp_path):
    file = tmp_path / "state"

    def stop(step, *_):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        schedules.run(Pruning(0.5), schedules.network(), file=file, callback=stop)
    with safe_open(file, "pt") as opened:
        assert {"schedule/0.weight", "tensor/4.bias", "optimizer/0/exp_avg"} <= set(opened.keys())
        asked = json.loads(json.loads(opened.metadata()["polyad"])["asked"])
    assert asked["schedule"] == {"name": "Pruning", "sparsity": 0.5}
    with pytest.raises(ValueError, match=r"another training \(schedule was .*0\.5.* and is .*0\.6"):
        schedules.run(Pruning(0.6), schedules.network(), file=file)
    other = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 4))
    with pytest.raises(ValueError, match=r"0\.weight has the shape \(5, 8\), and .* the shape \(16, 8\); give the"):
        schedules.run(Pruning(0.5), other, file=file)
    with pytest.raises(TypeError, match="parameters is a list; a schedule needs the whole model"):
        descend([torch.ones(1)], lambda step: torch.ones(()), steps=1, rate=0.1, schedule=Pruning())


def test_frozen_parameters_stay_frozen_after_a_kill(tmp_path):
    class Freezing(Schedule):
        def after_step(self, step, total):
            if step == 1:
                self.model[0].requires_grad_(False)

    def stop(step, *_):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        schedules.run(Freezing(), schedules.network(), file=tmp_path / "state", callback=stop)
    model = schedules.network()
    schedules.run(Freezing(), model, file=tmp_path / "state")
    whole = schedules.network()
    schedules.run(Freezing(), whole)
    assert not model[0].weight.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))
    with pytest.raises(ValueError, match="nothing is left to train"):
        schedules.run(Schedule(), schedules.network().requires_grad_(False))
