"""Names, settings and states in which folders of peft's are written and read, beside peft itself."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from polyad.adapters import Adapters, DoRA, LoHa, LoRA, PiSSA
from polyad.interop.peft import from_peft, to_peft

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6)).eval()


def drawn(model, adapters, which, method, **arguments):
    """Attach an adapter whose every number is random; the model."""
    adapters.attach("a", which, method, of=("linear", "conv", "embedding"), **arguments)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapters.parameters("a"):
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def from_theirs(folder, model):
    return PeftModel.from_pretrained(model, folder).eval()


@pytest.mark.parametrize("method", [LoRA, DoRA, PiSSA, LoHa])
def test_what_is_written_while_merged_is_what_is_written_before(method, tmp_path):
    model = net()
    adapters = Adapters(model)
    drawn(model, adapters, "*", method, rank=2)
    expected = model(X)
    adapters.merge()
    to_peft(adapters, "a", tmp_path / "merged", rank=8)
    assert adapters.merged
    torch.testing.assert_close(from_theirs(tmp_path / "merged", net())(X), expected, rtol=1e-4, atol=1e-5)
    adapters.unmerge()
    to_peft(adapters, "a", tmp_path / "plain", rank=8)
    plain, merged = (load_file(tmp_path / way / "adapter_model.safetensors") for way in ("plain", "merged"))
    assert all(torch.equal(plain[key], merged[key]) for key in plain)


class Bracketed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        names = ("a[0]", "a[0:3]", "b*", "c")
        self.parts = nn.ModuleDict({name: nn.Linear(6, 6) for name in names})

    def forward(self, x):
        for part in self.parts.values():
            x = torch.tanh(part(x))
        return x


def test_names_with_brackets_are_names(tmp_path):
    model = Bracketed()
    adapters = Adapters(model)
    drawn(model, adapters, ["parts.a[[]0]", "parts.a[[]0:3]", "parts.c"], LoRA, rank={"parts.c": 3, "*": 2})
    assert {site.path for site in adapters.sites("a")} == {"parts.a[0]", "parts.a[0:3]", "parts.c"}
    to_peft(adapters, "a", tmp_path / "peft")
    adapters.save("a", tmp_path / "ours")
    torch.testing.assert_close(from_theirs(tmp_path / "peft", Bracketed())(X), model(X), rtol=1e-5, atol=1e-6)
    for folder, load in (("peft", from_peft), ("ours", Adapters.load)):
        again = Bracketed()
        load(Adapters(again), tmp_path / folder)
        torch.testing.assert_close(again(X), model(X), rtol=1e-5, atol=1e-6)


def test_settings_that_a_folder_leaves_out_are_those_of_peft(tmp_path):
    torch.manual_seed(2)
    theirs = get_peft_model(net(), LoraConfig(r=4, target_modules=["0", "2"], init_lora_weights=False)).eval()
    theirs.save_pretrained(tmp_path / "lora")
    config = tmp_path / "lora" / "adapter_config.json"
    stated = json.loads(config.read_text())
    assert stated.pop("lora_alpha") == 8
    config.write_text(json.dumps(stated))
    model = net()
    from_peft(Adapters(model), tmp_path / "lora")
    torch.testing.assert_close(model(X), from_theirs(tmp_path / "lora", net())(X))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.first, self.last = nn.Embedding(11, 6), nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, ids):
        return self.last(torch.tanh(self.first(self.words(ids))))


def test_an_adapted_embedding_leaves_the_others_their_dropout(tmp_path):
    model = Words()
    adapters = Adapters(model)
    drawn(model, adapters, "*", LoRA, rank=2, dropout=0.25)
    assert [adapters.of("a")[name].dropout for name in ("words", "first", "last")] == [0.0, 0.25, 0.25]
    to_peft(adapters, "a", tmp_path / "peft")
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["lora_dropout"] == 0.25
    adapters.save("a", tmp_path / "ours")
    for folder, load in (("peft", from_peft), ("ours", Adapters.load)):
        again = Adapters(Words())
        name = load(again, tmp_path / folder)
        assert [again.of(name)[key].dropout for key in ("words", "first", "last")] == [0.0, 0.25, 0.25]
        ids = torch.arange(11)
        torch.testing.assert_close(again.model.eval()(ids), model.eval()(ids))
        assert not torch.equal(again.model.train()(ids), model.eval()(ids))


class Alike(nn.Module):
    """Layers whose names end alike."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.axb, self.deep = nn.Linear(6, 6), nn.Linear(6, 6), nn.ModuleDict()
        self.deep["first"], self.deep["a"] = nn.Linear(6, 6), nn.ModuleDict({"b": nn.Linear(6, 6)})
        self.deep["axb"] = nn.Linear(6, 6)

    def forward(self, x):
        for layer in (self.first, self.axb, self.deep["first"], self.deep["a"]["b"], self.deep["axb"]):
            x = torch.tanh(layer(x))
        return x


def test_exactly_the_adapted_layers_are_written_as_targets(tmp_path):
    model = Alike()
    adapters = Adapters(model)
    drawn(model, adapters, ["first", "deep.a.b"], LoRA, rank={"first": 2, "*": 3})
    to_peft(adapters, "a", tmp_path / "peft")
    theirs = from_theirs(tmp_path / "peft", Alike())
    adapted = {name.removeprefix("base_model.model.") for name, m in theirs.named_modules() if hasattr(m, "lora_A")}
    assert adapted == {"first", "deep.a.b"}
    torch.testing.assert_close(theirs(X), model(X))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_wrappers_are_stripped(prefix, tmp_path):
    torch.manual_seed(2)
    theirs = get_peft_model(Alike(), LoraConfig(r=4, target_modules=["first"], init_lora_weights=False)).eval()
    theirs.save_pretrained(tmp_path / "lora")
    file = tmp_path / "lora" / "adapter_model.safetensors"
    start = "base_model.model."
    save_file({start + prefix + key.removeprefix(start): t for key, t in load_file(file).items()}, file)
    for wrap in (lambda model: model, torch.compile):
        model = wrap(Alike())
        from_peft(Adapters(model), tmp_path / "lora")
        torch.testing.assert_close(getattr(model, "_orig_mod", model)(X), theirs(X))


def test_a_wrapped_model_is_written_under_its_own_names(tmp_path):
    model = Alike()
    wrapped = torch.compile(model)
    adapters = Adapters(wrapped)
    drawn(wrapped, adapters, "*first", LoRA, rank=2)
    to_peft(adapters, "a", tmp_path / "peft")
    keys = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert not any("_orig_mod" in key for key in keys)
    torch.testing.assert_close(from_theirs(tmp_path / "peft", Alike())(X), model(X))
