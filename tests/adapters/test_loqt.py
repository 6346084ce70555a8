"""Training of quantised weights: the steps of GaLore, the gradient's directions, and what merging leaves."""

import pytest
import torch
from torch import nn

from polyad.adapters import Adapters, LoQT, LoRA, absorb, merge_steps
from polyad.adapters.training.loop import train
from polyad.formats import Quantized
from polyad.layers import Linear
from polyad.optim import Optimizer, ProjectedAdam
from polyad.quantize import round_to_nearest

X = torch.randn(32, 12, generator=torch.Generator().manual_seed(0))


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def quantised(out=8, n=12, **how):
    """A model of two layers of codes, with LoQTs on them, and a loss."""
    torch.manual_seed(0)
    held = [round_to_nearest(drawn(out, n), 4, group=4), round_to_nearest(drawn(10, out, seed=1), 4, group=4)]
    model = nn.Sequential(Linear(held[0], drawn(out)), nn.Tanh(), Linear(held[1]))
    host = Adapters(model)
    host.attach("a", "*", LoQT, rank=3, group=4, **how)
    return model, host, lambda: (model(X) - 1).square().mean()


@pytest.mark.parametrize(("out", "n"), [(6, 10), (10, 6)])
def test_between_merges_it_takes_the_steps_of_galore(out, n):
    """Adam on B with P from the gradient is ProjectedAdam on W with the same basis; merging changes nothing."""
    weight, target, x = drawn(out, n), drawn(out, n, seed=1), drawn(20, n, seed=2)
    layer = nn.Linear(n, out, bias=False)
    layer.weight.data = weight.clone()
    host = Adapters(nn.Sequential(layer))
    host.attach("a", "*", LoQT, rank=2, bits=None, alpha=0.3)
    loss = lambda w: (x @ (w - target).mT).square().mean()  # noqa: E731
    own = nn.Parameter(weight.clone())
    galore = Optimizer([own], ProjectedAdam(2, interval=100, scale=0.3), lr=0.05)
    adam = torch.optim.Adam(host.parameters("a"), 0.05)
    run = lambda: (host.model(x) - x @ target.mT).square().mean()  # noqa: E731
    assert absorb(host, "a", run) == {"0": 0.0}
    for _ in range(5):
        for optimizer, value in ((galore, lambda: loss(own)), (adam, run)):
            optimizer.zero_grad()
            value().backward()
            optimizer.step()
    before = host.model(x)
    torch.testing.assert_close(before, x @ own.mT, rtol=1e-4, atol=1e-4)
    absorb(host, "a", run)
    torch.testing.assert_close(layer.weight, own, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(host.model(x), before, rtol=1e-4, atol=1e-4)
    assert not host.of("a")["0"].B.any()


def test_p_is_the_leading_singular_vectors_of_the_gradient_of_the_weight():
    model, host, loss = quantised(bits=None)
    dense = [layer.base.weight.clone().requires_grad_(True) for layer in host.layers().values()]
    y = torch.tanh(X @ dense[0].mT + model[0].layer.bias) @ dense[1].mT
    slopes = torch.autograd.grad((y - 1).square().mean(), dense)
    absorb(host, "a", loss)
    for own, slope in zip(host.of("a").values(), slopes, strict=True):
        u, _, v = torch.linalg.svd(slope.double(), full_matrices=False)
        side = (u[:, :3] if own.wide else v[:3].mT).float()
        P = own.projection()
        torch.testing.assert_close(P.mT @ P, side @ side.mT, rtol=1e-3, atol=1e-3)


def test_error_compensation_leaves_less_than_rounding_alone():
    errors = {}
    for rounds in (0, 1, 5):
        _, host, loss = quantised()
        with torch.no_grad():
            for parameter in host.parameters("a"):
                parameter.add_(0.5 * drawn(*parameter.shape, seed=4))
        before = host.model(X).detach()
        errors[rounds] = absorb(host, "a", loss, rounds=rounds)
        assert all(isinstance(layer.base.stored_weight, Quantized) for layer in host.layers().values())
        off = float((host.model(X).detach() - before).norm() / before.norm())
        assert off < 0.3
    for path in ("0", "2"):
        assert errors[1][path] < 0.95 * errors[0][path]
        assert errors[5][path] <= errors[1][path]


@pytest.mark.parametrize("path", ["0", "2"])
def test_what_it_says_is_the_error_of_codes_and_factor(path):
    _, host, loss = quantised()
    layer, own = host.layers()[path], host.of("a")[path]
    with torch.no_grad():
        own.B.add_(drawn(*own.B.shape))
        merged = layer.base.weight + own.scale * own.update(layer.base).to_dense()
    errors = absorb(host, "a", loss)
    with torch.no_grad():
        found = layer.base.weight + own.scale * own.update(layer.base).to_dense()
    assert errors[path] == pytest.approx(float((found - merged).norm() / merged.norm()), rel=1e-3)


def test_codes_keep_their_description_and_p_takes_few_bytes():
    _, host, loss = quantised()
    before = {path: layer.base.stored_weight.spec() for path, layer in host.layers().items()}
    absorb(host, "a", loss)
    assert {path: layer.base.stored_weight.spec() for path, layer in host.layers().items()} == before
    assert host.of("a")["0"].P().nbytes == 3 * 8 // 2 + 3 * 2 * 3  # codes of four bits; scales and zeros of four each
    assert set(host.named_parameters("a")) == {"0.B", "2.B"}


def test_training_with_merges_goes_where_the_rank_does_not_reach():
    """A change of full rank: a fixed factor of rank 1 leaves most of it, merging does not."""
    lost = {}
    for merged in (True, False):
        layer = nn.Linear(12, 6, bias=False)
        layer.weight.data.zero_()
        host, target = Adapters(nn.Sequential(layer)), drawn(6, 12)
        host.attach("a", "*", LoQT, rank=1, bits=None, alpha=1.0)

        def loss(host=host, target=target):
            return (host.model(X) - X @ target.mT).square().mean()

        adam, at = torch.optim.Adam(host.parameters("a"), 0.1), merge_steps(300, first=20, growth=0)
        for step in range(300):
            if step in at and (merged or not step):
                absorb(host, "a", loss)
            adam.zero_grad()
            value = loss()
            value.backward()
            adam.step()
        lost[merged] = float(value.detach())
    assert lost[True] < 0.1 * lost[False]


@pytest.mark.parametrize("codes", [True, False])
def test_a_killed_training_with_merges_goes_on_to_the_same_numbers(codes, tmp_path):
    def begun():
        if codes:
            return quantised()[1]
        torch.manual_seed(0)
        host = Adapters(nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 10)))
        host.attach("a", "*", LoQT, rank=3, group=4)
        return host

    def run(host, callback=None, **how):
        def loss(step):
            return (host.model(X + step / 20) - 1).square().mean()

        return train(host, "a", loss, steps=20, rate=0.05, merges=[0, 6, 12], every=4, callback=callback, **how)

    def killed(step, total, values):
        if step == 9:
            raise KeyboardInterrupt

    whole, other, state = begun(), begun(), tmp_path / "state"
    expected = run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(other, killed, state=state)
    third = begun()
    found = run(third, state=state)
    assert found.losses == expected.losses
    assert torch.equal(third.model(X), whole.model(X))
    assert not torch.equal(third.layers()["0"].base.weight, begun().layers()["0"].base.weight)
    assert min(found.losses[13:]) < 0.9 * found.losses[0]
    host = begun()
    with pytest.raises(ValueError, match="merges was"):
        train(host, "a", lambda step: host.model(X).square().mean(), steps=20, rate=0.05, merges=[0], state=state)


def test_intervals_grow_as_the_paper_has_it():
    assert merge_steps(1000, first=100, growth=1.2) == [0, 100, 201, 302, 403, 505, 607, 709, 812]
    assert merge_steps(50, first=10, growth=0) == [0, 10, 20, 30]
    with pytest.raises(ValueError, match="first=0"):
        merge_steps(10, first=0)


def test_what_cannot_be_absorbed_is_refused_by_name():
    _, host, loss = quantised()
    host.activate({"a": 0.5})
    with pytest.raises(ValueError, match="weight 1"):
        absorb(host, "a", loss)
    host.activate("a")
    host.freeze("a")
    with pytest.raises(ValueError, match="frozen"):
        absorb(host, "a", loss)
    host = Adapters(nn.Sequential(nn.Linear(4, 4)))
    host.attach("b", "*", LoRA, rank=1)
    with pytest.raises(ValueError, match="0 of 'b' is no LoQT"):
        absorb(host, "b", lambda: host.model(torch.ones(1, 4)).sum())
    host = Adapters(nn.Sequential(nn.Conv1d(4, 4, 2)))
    host.attach("c", "*", LoQT, rank=1)
    with pytest.raises(ValueError, match="linear layer"):
        absorb(host, "c", lambda: host.model(torch.ones(1, 4, 5)).sum())


def test_a_layer_without_gradient_keeps_its_directions():
    _, host, _ = quantised()
    before = host.of("a")["2"].projection().clone()
    absorb(host, "a", lambda: 0 * host.model(X).sum())
    assert torch.equal(host.of("a")["2"].projection(), before)
