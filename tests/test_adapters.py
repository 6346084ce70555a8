"""Adapters and their host."""

import copy
import doctest
import importlib
from functools import partial

import pytest
import torch
from torch import nn

from polyad.adapters import Adapter, Adapters, LoKr
from polyad.formats import Kronecker, LowRank
from polyad.layers import Linear


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 8), nn.Linear(8, 4, bias=False))


def lokr(seed=0, second=True):
    def make(shape):
        adapter = LoKr(shape, factor=4, scale=0.5, generator=torch.Generator().manual_seed(seed))
        if second:
            nn.init.normal_(adapter.factors.second, generator=torch.Generator().manual_seed(seed + 1))
        return adapter

    return make


X = torch.randn(5, 12, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", ["host", "lokr"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"polyad.adapters.{name}")).failed == 0


def test_the_update_is_a_kronecker_product_that_starts_at_zero():
    model = network()
    expected = model(X)
    Adapters(model).attach("a", "*", partial(LoKr, factor=4))
    assert torch.equal(model(X), expected)
    adapter = lokr()((16, 12))
    base = torch.zeros(16, 12)
    assert torch.allclose(adapter.weight(base), 0.5 * torch.kron(adapter.factors.first, adapter.factors.second))


def test_the_forward_pass_never_forms_the_update(monkeypatch):
    model = network()
    Adapters(model).attach("a", "*", lokr())
    monkeypatch.setattr(Kronecker, "to_dense", lambda self: pytest.fail("densified"))
    assert model(X).shape == (5, 4)


def test_merging_equals_the_forward_pass_and_unmerges_bit_by_bit():
    model = network().bfloat16()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapters = Adapters(model)
    adapters.attach("a", ["0", "2"], lokr(0))
    adapters.attach("b", ["2", "3"], lokr(3))
    assert {name: t for name, t in model.state_dict().items() if name in before}.keys() == before.keys()
    model.float()
    expected = model(X)
    adapters.merge()
    assert torch.allclose(model(X), expected, atol=1e-5)
    assert not torch.equal(model.state_dict()["2.weight"].bfloat16(), before["2.weight"])
    with pytest.raises(ValueError, match="call unmerge"):
        adapters.merge()
    adapters.unmerge()
    assert torch.equal(model(X), expected)
    assert all(torch.equal(model.state_dict()[name].bfloat16(), tensor) for name, tensor in before.items())


def test_detaching_restores_the_modules_themselves():
    model = network()
    model[0].weight.requires_grad_(False)
    modules, keys, flags = list(model), list(model.state_dict()), [p.requires_grad for p in model.parameters()]
    adapters = Adapters(model)
    adapters.attach("a", ["0", "2"], lokr(0))
    adapters.attach("b", "2", lokr(3))
    assert not model[2].weight.requires_grad
    assert all(p.requires_grad for p in adapters.parameters("b"))
    expected = model(X)
    adapters.detach("b")
    assert not torch.allclose(model(X), expected)
    assert list(model[2].adapters) == ["a"]
    adapters.merge()
    adapters.detach("a")
    assert all(a is b for a, b in zip(model, modules, strict=True))
    assert list(model.state_dict()) == keys
    assert [p.requires_grad for p in model.parameters()] == flags


def test_saving_and_loading_one_of_several():
    model, other = network(), network()
    adapters, others = Adapters(model), Adapters(other)
    for host, seed in ((adapters, 0), (others, 9)):
        host.attach("a", ["0", "2"], lokr(seed))
    others.load_state_dict("a", adapters.state_dict("a"))
    assert torch.equal(other(X), model(X))
    with pytest.raises(ValueError, match="do not fit"):
        others.load_state_dict("a", {})
    assert torch.equal(copy.deepcopy(model)(X), model(X))


def test_a_format_may_be_the_base():
    weight = LowRank(torch.randn(8, 2), torch.randn(2, 12))
    model = nn.Sequential(Linear(weight))
    adapters = Adapters(model)
    adapters.attach("a", "0", lokr())
    adapter = model[0].adapters["a"]
    dense = adapter.weight(weight.to_dense())
    assert torch.allclose(model(X), X @ dense.mT, atol=1e-4)
    with pytest.raises(ValueError, match="is a format"):
        adapters.merge()


class _Double(Adapter):
    def weight(self, base):
        return 2 * base


def test_an_adapter_need_only_give_its_weight():
    model = nn.Sequential(nn.Linear(12, 8))
    expected = model(X)
    adapters = Adapters(model)
    adapters.attach("a", "0", lambda shape: _Double())
    assert torch.allclose(model(X), 2 * expected - model[0].bias, atol=1e-5)


def test_training_touches_the_adapters_only():
    model = network()
    frozen = copy.deepcopy(model.state_dict())
    adapters = Adapters(model)
    adapters.attach("a", "*", partial(LoKr, factor=4, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.Adam(adapters.parameters("a"), lr=0.02)
    target = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(40):
        loss = (model(X) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in frozen.items())


def test_refusals():
    model = network()
    adapters = Adapters(model)
    with pytest.raises(ValueError, match="no adapters are called 'a'; there are none"):
        adapters.detach("a")
    with pytest.raises(ValueError, match="matches none"):
        adapters.attach("a", "nowhere", lokr())
    with pytest.raises(ValueError, match="factor=9 exceeds"):
        adapters.attach("a", "*", partial(LoKr, factor=9))
    assert all(p.requires_grad for p in model.parameters())
    adapters.attach("a", "0", lokr())
    with pytest.raises(ValueError, match="attached already"):
        adapters.attach("a", "2", lokr())
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    host = Adapters(tied)
    host.attach("a", "0", lokr())
    with pytest.raises(ValueError, match="shared with another module"):
        host.merge()
