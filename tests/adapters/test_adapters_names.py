"""Names of adapted models: state dicts, folders, brackets in paths, compiled and distributed models."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

import polyad
from polyad._card import methods
from polyad.adapters import Adapters, LoRA, VeRA
from polyad.testing.adapters import model_with_adapters, move

X = torch.randn(5, 12, generator=torch.Generator().manual_seed(7))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.block = nn.Linear(12, 12), nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 12))

    def forward(self, x):
        return self.block(self.first(x))


def network():
    torch.manual_seed(0)
    return Net()


CARDS = [card for card in methods("adapter") if card.name != "loqt"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
@pytest.mark.parametrize("kind", ["linear", "embedding", "experts"])
def test_a_state_dict_of_an_adapted_model_loads_into_it(card, kind):
    if kind not in card.example.get("of", (kind,)):
        kind = "linear"
    model, adapters, x = model_with_adapters(card, kind)
    before, saved = model(x), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in adapters.parameters("a"):
            parameter.zero_()
    assert not model.load_state_dict(saved).missing_keys
    assert torch.allclose(model(x), before, atol=1e-6)
    name = next(key for key in saved if ".adapters." in key)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*adapters\.b\.A"):
        model.load_state_dict({**saved, name.partition(".adapters.")[0] + ".adapters.b.A": X})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict({**saved, next(iter(adapters.layers())) + ".other.A": X})


@pytest.mark.parametrize("merged", [False, True])
def test_saving_a_model_with_adapters_says_what_to_do(tmp_path, merged):
    model = network()
    adapters = Adapters(model)
    adapters.attach("a", "*", LoRA, rank=2)
    move(adapters, "a")
    if merged:
        adapters.merge()
    said = "merged into it.*call unmerge" if merged else "attached to it.*detach them after Adapters.save"
    with pytest.raises(ValueError, match=f"first has adapters {said}.*merge\\(keep=False\\)"):
        polyad.save(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    adapters.unmerge()
    expected = model(X)
    adapters.merge(keep=False)
    polyad.save(model, tmp_path / "out")
    assert torch.allclose(polyad.load(tmp_path / "out", like=network())(X), expected, atol=1e-2)


def bracketed():
    torch.manual_seed(0)
    model = nn.Sequential()
    for name in ("a[0]", "b[0:2]", "c*"):
        model.add_module(name, nn.Linear(12, 12))
    return model


@pytest.mark.parametrize("which", ["a[0]", "b[0:2]", "c*"])
def test_names_with_brackets_are_names(tmp_path, which):
    model = bracketed()
    adapters = Adapters(model)
    names = adapters.attach("a", which, LoRA, rank=2, parts={which: [(0, 4), (6, 12)]})
    adapters.attach("b", which, LoRA, rank=2)
    assert names == [f"{which}[0:4]", f"{which}[6:12]"]
    move(adapters, "a")
    move(adapters, "b")
    assert [site.name for site in adapters.sites("a")] == names
    assert [site.name for site in adapters.sites("b")] == [which]
    expected = model(X)
    other = bracketed()
    for name in ("a", "b"):
        adapters.save(name, tmp_path / name)
        Adapters(other).load(tmp_path / name)
    assert torch.equal(other(X), expected)


def test_a_host_of_a_compiled_model_has_the_names_of_the_model(tmp_path):
    torch._dynamo.reset()
    model = network()
    plain = model(X)
    compiled = torch.compile(model, backend="eager")
    assert torch.allclose(compiled(X), plain)
    adapters = Adapters(compiled)
    assert adapters.attach("a", "*", VeRA, rank=2) == ["first", "block.0", "block.2"]
    move(adapters, "a")
    changed = model(X)
    assert not torch.allclose(changed, plain, atol=1e-3)
    assert torch.allclose(compiled(X), changed, atol=1e-6)
    adapters.save("a", tmp_path / "a")
    other = network()
    assert Adapters(other).load(tmp_path / "a") == "a"
    assert torch.allclose(other(X), changed, atol=1e-6)
    adapters.detach("a")
    assert torch.allclose(compiled(X), plain)


@pytest.mark.parametrize("path", ["first", "block"])
def test_parts_of_a_model_may_be_compiled_and_keep_their_names(path):
    torch._dynamo.reset()
    model = network()
    plain = model(X)
    model.set_submodule(path, torch.compile(model.get_submodule(path), backend="eager"))
    model(X)
    adapters = Adapters(model)
    assert adapters.attach("a", "*", LoRA, rank=2) == ["first", "block.0", "block.2"]
    assert list(adapters.state_dict("a")) == [f"{p}.{m}" for p in ("first", "block.0", "block.2") for m in "AB"]
    move(adapters, "a")
    other = network()
    second = Adapters(other)
    second.attach("a", "*", LoRA, rank=2)
    second.load_state_dict("a", adapters.state_dict("a"))
    assert not torch.allclose(model(X), plain, atol=1e-3)
    assert torch.allclose(model(X), other(X), atol=1e-6)
    adapters.detach("a")
    assert torch.allclose(model(X), plain)


@pytest.mark.parametrize("wrapper", ["ddp", "parallel"])
def test_a_host_of_a_distributed_model_has_the_names_of_the_model(tmp_path, wrapper):
    model = network()
    if wrapper == "ddp":
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model) if wrapper == "ddp" else nn.DataParallel(model)
        adapters = Adapters(wrapped)
        assert adapters.attach("a", "*", LoRA, rank=2) == ["first", "block.0", "block.2"]
        assert adapters.model is model
    finally:
        if wrapper == "ddp":
            dist.destroy_process_group()


def test_a_text_names_the_method_in_python_as_on_the_command_line():
    named, plain = Adapters(network()), Adapters(network())
    named.attach("a", "block.*", "lora:rank=2,dropout=0.5")
    plain.attach("a", "block.*", LoRA, rank=2, dropout=0.5)
    for path, tensor in plain.state_dict("a").items():
        assert torch.equal(named.state_dict("a")[path], tensor)
    with pytest.raises(ValueError, match="lora has no argument 'ranks'; did you mean rank"):
        named.attach("b", "block.*", "lora:ranks=2")
